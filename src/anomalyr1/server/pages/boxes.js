// Boxes as [left, top, right, bottom] in pixels of the picture. Pure functions: each gives a new box.
export const LEAST = 4; // pixels of a side
export const GRIPS = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];

const round = (side) => Math.round(side * 10) / 10;
const within = (value, low, high) => Math.min(Math.max(value, low), high);

// The box between two corners in any order, cut to a picture of width x height.
export function spanBox([x1, y1], [x2, y2], width, height) {
  return [
    within(Math.min(x1, x2), 0, width), within(Math.min(y1, y2), 0, height),
    within(Math.max(x1, x2), 0, width), within(Math.max(y1, y2), 0, height),
  ].map(round);
}

// Moved as a whole; it stops at the picture's edge.
export function moveBox([left, top, right, bottom], dx, dy, width, height) {
  const x = within(dx, -left, width - right), y = within(dy, -top, height - bottom);
  return [left + x, top + y, right + x, bottom + y].map(round);
}

// One grip moved: its sides follow, the others stay, and no side becomes shorter than LEAST.
export function resizeBox([left, top, right, bottom], grip, dx, dy, width, height) {
  return [
    grip.includes("w") ? within(left + dx, 0, right - LEAST) : left,
    grip.includes("n") ? within(top + dy, 0, bottom - LEAST) : top,
    grip.includes("e") ? within(right + dx, left + LEAST, width) : right,
    grip.includes("s") ? within(bottom + dy, top + LEAST, height) : bottom,
  ].map(round);
}

export function placeGrip([left, top, right, bottom], grip) {
  return [
    grip.includes("w") ? left : grip.includes("e") ? right : (left + right) / 2,
    grip.includes("n") ? top : grip.includes("s") ? bottom : (top + bottom) / 2,
  ];
}

// The grip nearest to a point, not farther than reach; undefined for none.
export function findGrip(box, [x, y], reach) {
  const far = (grip) => { const at = placeGrip(box, grip); return Math.hypot(at[0] - x, at[1] - y); };
  const [nearest] = GRIPS.toSorted((one, other) => far(one) - far(other));
  return far(nearest) <= reach ? nearest : undefined;
}

// The place of the topmost box that holds a point; -1 for none.
export const findBox = (regions, [x, y]) => regions.findLastIndex(({ box_xyxy: [left, top, right, bottom] }) => x >= left && x <= right && y >= top && y <= bottom);

// A box in words, for who cannot see it.
export function describeBox(region, index, total) {
  const [left, top, right, bottom] = region.box_xyxy.map(Math.round);
  return `Box ${index + 1} of ${total}, ${region.label || "no label"}: left ${left}, top ${top}, ${right - left} wide, ${bottom - top} high`;
}
