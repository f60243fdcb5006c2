/**
 * The node's HTTP interface as the console sees it: the JSON of its routes, its stream of events, its tiles.
 * Every request goes to the origin that served the page. `null` means unknown, here and everywhere above.
 */
import { EventStreamParser } from './sse';

export interface Vehicle {
  vehicle_id: string;
  observed_unix_ms: number | null;
  latitude: number | null;
  longitude: number | null;
  altitude_m: number | null;
  relative_altitude_m: number | null;
  roll_deg: number | null;
  pitch_deg: number | null;
  yaw_deg: number | null;
  heading_deg: number | null;
  ground_speed_mps: number | null;
  battery_percent: number | null;
  flight_mode: string | null;
  armed: boolean | null;
  source: string;
  sensor_health: string;
  link: { messages: number; lost: number; signed: number } | null;
  simulated: boolean;
}

export interface Phone {
  client_id: string;
  device_model: string | null;
  streams: string[];
  last_seen_unix_ms: number | null;
  latitude: number | null;
  longitude: number | null;
  altitude_m: number | null;
  accuracy_m: number | null;
  heading_deg: number | null;
  accepted: number;
  simulated: boolean;
}

export type TrackingState = 'tracking' | 'initializing' | 'lost';
export type PoseSource = 'image_metadata' | 'telemetry' | 'position_only' | 'assumed';

export interface Pose {
  sensor_id: string;
  observed_unix_ms: number;
  state: TrackingState;
  latitude: number | null;
  longitude: number | null;
  altitude_m: number | null;
  height_above_ground_m: number | null;
  heading_deg: number | null;
  source: PoseSource | null;
  frame_id: string | null;
  simulated: boolean;
}

export type LngLat = [number, number];

export interface Keyframe {
  frame_id: string;
  sensor_id: string;
  captured_unix_ms: number | null;
  received_unix_ms: number;
  state: TrackingState;
  latitude: number | null;
  longitude: number | null;
  altitude_m: number | null;
  height_above_ground_m: number | null;
  source: PoseSource | null;
  reason: string | null;
  footprint: LngLat[];
  simulated: boolean;
}

/** The newest keyframes, or those with a verdict after the position `after`, which go on to `position`. */
export interface Keyframes {
  after: number | null;
  position: number;
  keyframes: Keyframe[];
}

/** One commit of the map: the tiles that a frame rewrote, as `[z, x, y]`. */
export interface TileChange {
  layer: string;
  sequence: number;
  tiles: [number, number, number][];
  committed_unix_ms: number;
  latency_ms: number;
  frames: { frame_id: string; sensor_id: string; revision: number }[];
  simulated: boolean;
}

export type MeshEvent =
  | { kind: 'tile'; peer_id: string; layer: string; sequence: number; tiles: number; simulated: boolean }
  | { kind: 'message'; peer_id: string; topic: string; bytes: number; published_unix_ms: number };

export interface Latency {
  frames_painted: number;
  tiles_written: number;
  frames: number;
  p50_ms: number;
  p99_ms: number;
}

export interface Stats {
  node: string;
  version: string;
  simulated: boolean;
  paint: {
    frames_painted: number;
    tiles_written: number;
    since_unix_ms: number | null;
    latency: { frames: number; p50_ms: number; p99_ms: number } | null;
  } | null;
  unavailable: string[];
}

export interface Mesh {
  node: { peer_id: string; node_id: string };
  peers: { peer_id: string; agent: string | null; transport: string }[];
}

/** `[west, south, east, north]`, degrees. */
export type Bounds = [number, number, number, number];

export interface Layer {
  minzoom: number;
  maxzoom: number;
  bounds?: Bounds;
  simulated: boolean;
  last_change: number;
  tile_count: number;
}

/** The node wants to know who reads. */
export class Unauthorized extends Error {
  constructor() {
    super('the node asks for its access token');
  }
}

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await fetch(path, { headers: { accept: 'application/json' }, ...(signal && { signal }) });
  if (response.status === 401) throw new Unauthorized();
  if (!response.ok) throw new Error(`GET ${path} answered ${response.status}`);
  return (await response.json()) as T;
}

export const vehicles = () => get<{ vehicles: Vehicle[] }>('/api/v1/vehicles').then((answer) => answer.vehicles);
export const phones = () => get<{ phones: Phone[] }>('/api/v1/phones').then((answer) => answer.phones);
export const keyframes = (limit: number, sensor = '') =>
  get<Keyframes>(`/api/v1/keyframes?limit=${limit}&sensor=${sensor}`);
export const stats = () => get<Stats>('/api/v1/stats');
export const mesh = () => get<Mesh>('/api/v1/mesh');
export const layer = (name: string, signal?: AbortSignal) => get<Layer>(`/tiles/${name}`, signal);

/** One tile as the node has it now (revalidated by its ETag), or `null` where the layer is empty. */
export async function tile(name: string, z: number, x: number, y: number, signal: AbortSignal): Promise<Blob | null> {
  // For a screen: the one that loses a little and is small.
  const headers = { accept: 'image/webp' };
  const response = await fetch(`/tiles/${name}/${z}/${x}/${y}`, { cache: 'no-cache', headers, signal });
  if (response.status === 204 || response.status === 404) return null;
  if (response.status === 401) throw new Unauthorized();
  if (!response.ok) throw new Error(`tile ${z}/${x}/${y} answered ${response.status}`);
  return response.blob();
}

export type Sent =
  | { status: 'accepted'; frameId: string; duplicate: boolean }
  | { status: 'refused'; reason: string }
  | { status: 'unauthorized' | 'busy' };

/** Sends a picture as one from the air. */
export async function uploadPicture(sensor: string, picture: Blob, token: string): Promise<Sent> {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'image/jpeg' };
  const response = await fetch(`/api/v1/drones/${sensor}/captures`, { method: 'POST', headers, body: picture });
  const answer = (await response.json()) as { frame_id?: string; duplicate?: boolean; detail?: string };
  if (response.ok) return { status: 'accepted', frameId: answer.frame_id ?? '', duplicate: answer.duplicate ?? false };
  if (response.status === 401) return { status: 'unauthorized' };
  if ([429, 503, 507].includes(response.status)) return { status: 'busy' };
  return { status: 'refused', reason: answer.detail ?? `was refused with ${response.status}` };
}

/** Trades the access token for a session cookie of this browser; `false` when the node does not know the token. */
export async function openSession(token: string): Promise<boolean> {
  const response = await fetch('/api/v1/session', { method: 'POST', headers: { authorization: `Bearer ${token}` } });
  return response.ok;
}

export interface EventHandlers {
  hello: (event: { node: string; resumed: boolean }) => void;
  missed: (event: { events: number }) => void;
  vehicle: (event: Vehicle) => void;
  phone: (event: Phone) => void;
  pose: (event: Pose) => void;
  keyframes: (event: Keyframes) => void;
  tile: (event: TileChange) => void;
  mesh: (event: MeshEvent) => void;
  latency: (event: Latency) => void;
}

export type LinkState = 'connecting' | 'live' | 'reconnecting' | 'unauthorized' | 'paused';

/** A page in another tab is told nothing after this time, until it is looked at again. */
const HIDDEN_LIMIT_MS = 5_000;

/** The node sends at least a comment every 15 s; a stream that is silent for longer than this is dead. */
const SILENCE_LIMIT_MS = 40_000;
/** Reconnection waits double from the first to the last of these. */
const RETRY_FIRST_MS = 500;
const RETRY_LAST_MS = 8_000;

/**
 * Reads the node's events for as long as the page lives, and reconnects by itself. It reads with `fetch`, as
 * `EventSource` shows neither a refusal nor the keep-alive comments that tell a calm link from a dead one.
 */
export async function follow(handlers: EventHandlers, onLink: (state: LinkState) => void): Promise<never> {
  let wait = RETRY_FIRST_MS;
  const place = { lastId: '' };
  let state: LinkState = 'connecting';
  const link = (next: LinkState) => {
    if (next !== state) onLink(next);
    state = next;
  };
  for (;;) {
    try {
      await readOnce(handlers, place, () => {
        wait = RETRY_FIRST_MS;
        link('live');
      });
      link('reconnecting');
    } catch (error) {
      if (document.hidden && !(error instanceof Unauthorized)) {
        link('paused');
        await looked();
        continue;
      }
      link(error instanceof Unauthorized ? 'unauthorized' : 'reconnecting');
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, RETRY_LAST_MS);
  }
}

/** Until the page is looked at. */
function looked(): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener('visibilitychange', look);
      resolve();
    };
    document.addEventListener('visibilitychange', look);
    look();
  });
}

/** Reads until the stream ends; `place` is where it goes on the next time. */
async function readOnce(handlers: EventHandlers, place: { lastId: string }, onOpen: () => void): Promise<void> {
  const abort = new AbortController();
  let watchdog = setTimeout(() => abort.abort(), SILENCE_LIMIT_MS);
  let hiding: ReturnType<typeof setTimeout> | undefined;
  const visibility = () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(() => abort.abort(), HIDDEN_LIMIT_MS);
  };
  document.addEventListener('visibilitychange', visibility);
  visibility();
  try {
    const response = await fetch('/api/v1/events', {
      headers: { accept: 'text/event-stream', ...(place.lastId && { 'last-event-id': place.lastId }) },
      cache: 'no-store',
      signal: abort.signal,
    });
    if (response.status === 401) throw new Unauthorized();
    if (!response.ok || !response.body) throw new Error(`the events answered ${response.status}`);
    onOpen();
    const parser = new EventStreamParser();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(() => abort.abort(), SILENCE_LIMIT_MS);
      for (const event of parser.push(value)) {
        if (event.lastId) place.lastId = event.lastId;
        dispatch(handlers, event.name, event.data);
      }
    }
  } finally {
    document.removeEventListener('visibilitychange', visibility);
    clearTimeout(hiding);
    clearTimeout(watchdog);
    abort.abort();
  }
}

function dispatch(handlers: EventHandlers, name: string, data: string): void {
  if (!Object.hasOwn(handlers, name)) return;
  const handler = handlers[name as keyof EventHandlers] as (event: unknown) => void;
  handler(JSON.parse(data));
}
