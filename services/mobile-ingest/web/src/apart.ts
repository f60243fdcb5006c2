/** Moves markers that stand on one another apart, so that each can be seen and hit. */

export interface Spot {
  id: string;
  /** Pixels on the screen. */
  x: number;
  y: number;
}

/** How far a marker is moved, in pixels, and on which side of it its name has room. */
export interface Offset {
  dx: number;
  dy: number;
  side: 'below' | 'above' | 'right' | 'left';
}

/** Markers that are closer than this cover one another. */
const CLOSE_PX = 26;
/** Markers of one place stand around it so far from their neighbours; beyond this radius they may touch. */
const SPACING_PX = 34;
const MAX_RADIUS_PX = 90;

const ALONE: Offset = { dx: 0, dy: 0, side: 'below' };

/** Where each goes: those that cover one another onto a circle around their middle, in the order of their names. */
export function apart(spots: readonly Spot[]): Map<string, Offset> {
  const offsets = new Map<string, Offset>();
  for (const group of groups(spots)) {
    const [first] = group;
    if (group.length === 1 && first) {
      offsets.set(first.id, ALONE);
      continue;
    }
    const middle = { x: mean(group.map(({ x }) => x)), y: mean(group.map(({ y }) => y)) };
    const radius = Math.min(MAX_RADIUS_PX, Math.max(SPACING_PX / 2, (group.length * SPACING_PX) / (2 * Math.PI)));
    group.forEach((spot, index) => {
      // From the left, so that two stand side by side.
      const angle = Math.PI + (2 * Math.PI * index) / group.length;
      const [x, y] = [radius * Math.cos(angle), radius * Math.sin(angle)];
      offsets.set(spot.id, { dx: middle.x + x - spot.x, dy: middle.y + y - spot.y, side: sideOf(x, y) });
    });
  }
  return offsets;
}

function sideOf(x: number, y: number): Offset['side'] {
  if (Math.abs(x) >= Math.abs(y)) return x < 0 ? 'left' : 'right';
  return y < 0 ? 'above' : 'below';
}

/** Each with the first one that it is close to; found by cells, so that many markers cost little. */
function groups(spots: readonly Spot[]): Spot[][] {
  const cells = new Map<string, Spot[][]>();
  const all: Spot[][] = [];
  for (const spot of [...spots].sort((a, b) => (a.id < b.id ? -1 : 1))) {
    const [column, row] = [Math.floor(spot.x / CLOSE_PX), Math.floor(spot.y / CLOSE_PX)];
    const near = [-1, 0, 1].flatMap((down) => [-1, 0, 1].flatMap((right) => cells.get(`${column + right},${row + down}`) ?? []));
    const group = near.find(([first]) => first && Math.hypot(first.x - spot.x, first.y - spot.y) < CLOSE_PX);
    if (group) {
      group.push(spot);
      continue;
    }
    const made = [spot];
    all.push(made);
    const cell = `${column},${row}`;
    cells.set(cell, [...(cells.get(cell) ?? []), made]);
  }
  return all;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
