/**
 * The live raster layer. Tiles come through a protocol of our own, which knows two things the plain one does
 * not: that a tile changed while it was on its way, and which tiles hold a picture.
 */
import { addProtocol, type Map as MapLibreMap } from 'maplibre-gl';
import * as api from './api';

const PROTOCOL = 'live';
export const SOURCE = 'imagery';

/** Changed tiles are asked for again at most this often, */
const REFRESH_EVERY_MS = 1_000;
/** on a slow link not before this many times what a tile takes, */
const REST = 4;
/** and never so often that they take more of a link than this, in bytes a millisecond. */
const BUDGET = 50;
/** How much of the time that a tile takes is that of the newest one. */
const NEWEST_SHARE = 0.2;
/** Remembered tile numbers; the oldest are forgotten, which costs a count or one late refresh. */
const MAX_REMEMBERED = 20_000;
/** Pictures kept for when the node cannot be asked; the one fetched longest ago goes beyond this. */
const MAX_KEPT = 512;
/** The picture's fade-in when a tile is seen for the first time. */
const FADE_MS = 250;

type Coordinate = { z: number; x: number; y: number };
const keyOf = ({ z, x, y }: Coordinate) => `${z}/${x}/${y}`;

export class LiveTiles {
  readonly #map: MapLibreMap;
  readonly #before: string;
  readonly #name: string;
  readonly #onCount: (tiles: number) => void;
  readonly #onUnauthorized: () => void;
  readonly #withContent = new Set<string>();
  readonly #kept = new Map<string, Blob>();
  readonly #revisions = new Map<string, number>();
  readonly #pending = new Map<string, Coordinate>();
  #revision = 0;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #zooms: { min: number; max: number } | null = null;
  #generation = 0;
  #tileMs = 0;
  /** When tiles were last asked for again, and the bytes that arrived since. */
  #asked = 0;
  #bytes = 0;

  constructor(
    map: MapLibreMap,
    options: { name: string; before: string; onCount: (tiles: number) => void; onUnauthorized: () => void },
  ) {
    this.#map = map;
    this.#name = options.name;
    this.#before = options.before;
    this.#onCount = options.onCount;
    this.#onUnauthorized = options.onUnauthorized;
    addProtocol(PROTOCOL, (request, abort) => this.#load(request.url, abort.signal));
  }

  /** Shows the zooms `min` to `max`; the map stretches the deepest one beyond. */
  setZooms(min: number, max: number): void {
    const zooms = { min: Math.min(min, this.#zooms?.min ?? min), max: Math.max(max, this.#zooms?.max ?? max) };
    if (this.#zooms && zooms.min === this.#zooms.min && zooms.max === this.#zooms.max) return;
    this.#zooms = zooms;
    const old = this.#generation > 0 ? this.#id() : null;
    this.#generation += 1;
    const id = this.#id();
    this.#map.addSource(id, {
      type: 'raster',
      tiles: [`${PROTOCOL}://{z}/{x}/{y}`],
      tileSize: 256,
      minzoom: zooms.min,
      maxzoom: zooms.max,
    });
    this.#map.addLayer(
      { id, type: 'raster', source: id, paint: { 'raster-fade-duration': FADE_MS, 'raster-resampling': 'linear' } },
      this.#before,
    );
    // The zoom range of a source is fixed, so a deeper layer is a new source; the old one stays below it
    // until the new one has drawn, so nothing flickers.
    if (old) this.#map.once('idle', () => this.#remove(old));
  }

  /** These tiles have new content. */
  changed(tiles: [number, number, number][]): void {
    if (tiles.length === 0) return;
    const zooms = tiles.map(([z]) => z);
    this.setZooms(Math.min(...zooms), Math.max(...zooms));
    this.#revision += 1;
    for (const [z, x, y] of tiles) {
      const key = `${z}/${x}/${y}`;
      this.#revisions.delete(key);
      this.#revisions.set(key, this.#revision);
      this.#pending.set(key, { z, x, y });
    }
    trim(this.#revisions);
    this.#schedule();
  }

  /** Asks for everything in view again, after events were missed. */
  refreshAll(): void {
    this.#revision += 1;
    this.#revisions.clear();
    if (this.#generation > 0) this.#map.refreshTiles(this.#id());
  }

  #id(): string {
    return `${SOURCE}-${this.#generation}`;
  }

  #remove(id: string): void {
    if (this.#map.getLayer(id)) this.#map.removeLayer(id);
    if (this.#map.getSource(id)) this.#map.removeSource(id);
  }

  #schedule(): void {
    const due = this.#asked + Math.max(REFRESH_EVERY_MS, this.#tileMs * REST, this.#bytes / BUDGET);
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#asked = performance.now();
      this.#bytes = 0;
      const tiles = [...this.#pending.values()];
      this.#pending.clear();
      if (this.#generation > 0) this.#map.refreshTiles(this.#id(), tiles);
    }, Math.max(0, due - performance.now()));
  }

  async #load(url: string, signal: AbortSignal): Promise<{ data: ImageBitmap | ArrayBuffer }> {
    const [z = 0, x = 0, y = 0] = url.slice(`${PROTOCOL}://`.length).split('/').map(Number);
    const coordinate = { z, x, y };
    const key = keyOf(coordinate);
    const before = this.#revisions.get(key);
    try {
      const blob = await this.#fetch(key, coordinate, signal);
      if (this.#revisions.get(key) !== before) {
        this.#pending.set(key, coordinate);
        this.#schedule();
      }
      this.#remember(key, blob !== null);
      // MapLibre draws no bytes as nothing.
      return { data: blob ? await createImageBitmap(blob) : new ArrayBuffer(0) };
    } catch (error) {
      if (error instanceof api.Unauthorized) this.#onUnauthorized();
      throw error;
    }
  }

  /** The tile as the node has it now, or as it had it when it cannot be asked: what was seen stays in view. */
  async #fetch(key: string, { z, x, y }: Coordinate, signal: AbortSignal): Promise<Blob | null> {
    let blob: Blob | null;
    try {
      const asked = performance.now();
      blob = await api.tile(this.#name, z, x, y, signal);
      this.#tileMs += (performance.now() - asked - this.#tileMs) * NEWEST_SHARE;
    } catch (error) {
      const kept = this.#kept.get(key);
      if (!kept || signal.aborted || error instanceof api.Unauthorized) throw error;
      return kept;
    }
    this.#kept.delete(key);
    if (blob) this.#kept.set(key, blob);
    this.#bytes += blob?.size ?? 0;
    trim(this.#kept, MAX_KEPT);
    return blob;
  }

  #remember(key: string, content: boolean): void {
    if (content) this.#withContent.add(key);
    else this.#withContent.delete(key);
    trim(this.#withContent);
    this.#onCount(this.#withContent.size);
  }
}

function trim(remembered: Set<string> | Map<string, unknown>, most = MAX_REMEMBERED): void {
  for (const key of remembered.keys()) {
    if (remembered.size <= most) return;
    remembered.delete(key);
  }
}
