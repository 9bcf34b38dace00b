"""Wakes waiters in the event loop from the model's thread."""

from __future__ import annotations

import asyncio


class Bell:
    """Whoever waits is woken by the next ring, or after a time. Rings may come from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self.is_closing = False

    def attach(self) -> None:
        """Bind to the running event loop."""
        self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._swap)

    def close(self) -> None:
        """Tell all who wait, now and later, to go home: the server stops."""
        self.is_closing = True
        self.ring()

    async def wait(self, seconds: float) -> None:
        event = self._event
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return

    def _swap(self) -> None:
        event, self._event = self._event, asyncio.Event()
        event.set()
