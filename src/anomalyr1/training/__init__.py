"""Recipes and the stages that they run."""
