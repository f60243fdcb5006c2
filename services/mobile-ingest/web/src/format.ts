/** Values as people read them. What is unknown is a dash, never a zero. */
import type { MeshEvent } from './api';

export const UNKNOWN = '—';

type Maybe<T> = T | null | undefined;

/** `12.3 m`, with a fixed number of decimals. */
export function quantity(value: Maybe<number>, unit: string, decimals = 0): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return UNKNOWN;
  return `${value.toFixed(decimals)}${unit}`;
}

/** `1,234` */
export function count(value: Maybe<number>): string {
  return value === null || value === undefined ? UNKNOWN : value.toLocaleString('en');
}

/** `14:05`, with the day before it unless it is today. */
export function since(unixMs: number, now = Date.now()): string {
  const time = new Date(unixMs);
  const of = time.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
  const sameDay = time.toDateString() === new Date(now).toDateString();
  return sameDay ? of : `${time.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })} ${of}`;
}

/** Milliseconds with about three figures: `41 ms`, `4.2 ms`, `1.31 s`. */
export function duration(ms: Maybe<number>): string {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return UNKNOWN;
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms >= 10_000 ? 1 : 2)} s`;
  return `${ms.toFixed(ms >= 10 ? 0 : 1)} ms`;
}

/** `271° W` */
export function bearing(deg: Maybe<number>): string {
  if (deg === null || deg === undefined || !Number.isFinite(deg)) return UNKNOWN;
  const turned = ((deg % 360) + 360) % 360;
  const names = ['N', 'NE', 'E', 'SE', 'S', 'SW', 'W', 'NW'];
  return `${Math.round(turned) % 360}° ${names[Math.round(turned / 45) % 8]}`;
}

/** `37.91234° S, 145.00310° E` */
export function position(latitude: Maybe<number>, longitude: Maybe<number>, decimals = 5): string {
  if (latitude === null || latitude === undefined || longitude === null || longitude === undefined) return UNKNOWN;
  const ns = `${Math.abs(latitude).toFixed(decimals)}° ${latitude < 0 ? 'S' : 'N'}`;
  const ew = `${Math.abs(longitude).toFixed(decimals)}° ${longitude < 0 ? 'W' : 'E'}`;
  return `${ns}, ${ew}`;
}

/** `now`, `12 s ago`, `3 min ago`, `2 h ago` */
export function ago(ms: Maybe<number>): string {
  if (ms === null || ms === undefined) return UNKNOWN;
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 2) return 'now';
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ago`;
}

/** `14:03:27` by the reader's clock. */
export function clock(unixMs: number): string {
  return new Date(unixMs).toLocaleTimeString('en-GB');
}

/** The first eight and last four characters of a long id. */
export function short(id: string): string {
  return id.length > 16 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id;
}

/** What a peer told, `times` in a row; what a simulation painted says so. */
export function meshNews(event: MeshEvent, times: number): string {
  const peer = `Peer ${short(event.peer_id)}`;
  if (event.kind === 'message') return `${peer}: ${times === 1 ? 'a message' : `${times} messages`} on ${event.topic}`;
  const simulated = event.simulated ? ' (simulated)' : '';
  return `${peer}${simulated}: ${times === 1 ? `${event.tiles} tiles changed` : `${times} map changes`}`;
}
