/** Plain geometry on longitudes and latitudes, degrees. */
import type { Position } from 'geojson';
import type { Bounds, LngLat } from './api';

const METRES_PER_DEGREE = 111_320;

/** Good to a percent over the few kilometres it is used for. */
export function distanceMetres(a: LngLat, b: LngLat): number {
  const east = (b[0] - a[0]) * Math.cos(((a[1] + b[1]) / 2) * (Math.PI / 180));
  return Math.hypot(east, b[1] - a[1]) * METRES_PER_DEGREE;
}

export function union(bounds: Bounds | null, other: Bounds): Bounds {
  if (!bounds) return other;
  return [
    Math.min(bounds[0], other[0]),
    Math.min(bounds[1], other[1]),
    Math.max(bounds[2], other[2]),
    Math.max(bounds[3], other[3]),
  ];
}

export function pointBounds([lng, lat]: LngLat): Bounds {
  return [lng, lat, lng, lat];
}

export function contains(outer: Bounds, inner: Bounds): boolean {
  return outer[0] <= inner[0] && outer[1] <= inner[1] && outer[2] >= inner[2] && outer[3] >= inner[3];
}

export function centre(bounds: Bounds): LngLat {
  return [(bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2];
}

/** At least `metres` wide and high, around the same centre. */
export function atLeast(bounds: Bounds, metres: number): Bounds {
  const [lng, lat] = centre(bounds);
  const high = metres / METRES_PER_DEGREE / 2;
  const wide = high / Math.max(0.01, Math.cos(lat * (Math.PI / 180)));
  return union(bounds, [lng - wide, lat - high, lng + wide, lat + high]);
}

/** Larger by `share` of its width and height on each side. */
export function grown([west, south, east, north]: Bounds, share: number): Bounds {
  const [wide, high] = [(east - west) * share, (north - south) * share];
  return [west - wide, south - high, east + wide, north + high];
}

const STEPS = [30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001];

/** The coarsest graticule step that still divides `span` degrees into at least `lines` parts. */
export function graticuleStep(span: number, lines: number): number {
  return STEPS.find((step) => span / step >= lines) ?? 0.0001;
}

/** Meridians and parallels every `step` degrees across `view`. */
export function graticule(view: Bounds, step: number): Position[][] {
  const lines: Position[][] = [];
  const south = Math.max(-85, view[1]);
  const north = Math.min(85, view[3]);
  for (let i = Math.ceil(view[0] / step); i * step <= view[2]; i += 1) {
    lines.push(sampled([i * step, south], [i * step, north]));
  }
  for (let i = Math.ceil(south / step); i * step <= north; i += 1) {
    lines.push(sampled([view[0], i * step], [view[2], i * step]));
  }
  return lines;
}

/** On a globe a long line must bend, so it gets a point every five degrees. */
function sampled(from: LngLat, to: LngLat): Position[] {
  const parts = Math.max(1, Math.ceil(Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1])) / 5));
  return Array.from({ length: parts + 1 }, (_, i) => [
    from[0] + ((to[0] - from[0]) * i) / parts,
    from[1] + ((to[1] - from[1]) * i) / parts,
  ]);
}

/** The line without jumps at the antimeridian: it goes on beyond 180 degrees instead. */
export function unwrap(line: Position[]): Position[] {
  let turn = 0;
  return line.map(([lng = 0, lat = 0], index) => {
    const before = line[index - 1]?.[0] ?? lng;
    if (lng - before > 180) turn -= 360;
    else if (lng - before < -180) turn += 360;
    return [lng + turn, lat];
  });
}

/** The ring without jumps; one that goes around the Earth (Antarctica) is closed over the south pole. */
export function closeRing(ring: Position[]): Position[] {
  const open = unwrap(ring);
  const [first, last] = [open[0], open.at(-1)];
  if (!first || !last || Math.abs((last[0] ?? 0) - (first[0] ?? 0)) < 180) return open;
  return [...open, [last[0] ?? 0, -90], [first[0] ?? 0, -90], first];
}

/** Whether a polygon (outer ring, then holes) contains a point; even-odd rule. */
export function polygonContains(rings: Position[][], [lng, lat]: LngLat): boolean {
  let inside = false;
  for (const ring of rings) {
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i, i += 1) {
      const [xi = 0, yi = 0] = ring[i] ?? [];
      const [xj = 0, yj = 0] = ring[j] ?? [];
      if (yi > lat !== yj > lat && lng < ((xj - xi) * (lat - yi)) / (yj - yi) + xi) inside = !inside;
    }
  }
  return inside;
}

/** Steps shorter than this are noise of the position, not movement. */
const TRACK_STEP_METRES = 0.5;

/** Adds a position to a track; the oldest points go when it has more than `limit`. True when it changed. */
export function extendTrack(track: LngLat[], point: LngLat, limit: number): boolean {
  const last = track.at(-1);
  if (last && distanceMetres(last, point) < TRACK_STEP_METRES) return false;
  track.push(point);
  if (track.length > limit) track.splice(0, track.length - limit);
  return true;
}
