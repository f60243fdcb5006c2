/** The map: base map, graticule, footprints, tracks and camera positions, and the camera that looks at them. */
import maplibreWorkerUrl from 'maplibre-gl/dist/maplibre-gl-worker.mjs?url';
import {
  type ExpressionSpecification,
  type FilterSpecification,
  type GeoJSONSource,
  Map as MapLibreMap,
  ScaleControl,
  setWorkerUrl,
  type StyleSpecification,
} from 'maplibre-gl';
import type { Feature, FeatureCollection, GeoJSON } from 'geojson';
import type { Bounds, Keyframe, LngLat } from './api';
import type { Earth } from './earth';
import type { Sensor } from './fleet';
import { atLeast, graticule, graticuleStep } from './geo';
import { onThemeChange, palette, reducedMotion, sensorColour } from './theme';

setWorkerUrl(maplibreWorkerUrl);

const EMPTY: FeatureCollection = { type: 'FeatureCollection', features: [] };
/** Coasts at 1:50 million are kilometres off; between these zooms the base map gives way to plain paper. */
const PAPER_FROM = 8;
const PAPER_TO = 11.5;
/** The deepest zoom that showing everything goes to. */
const FIT_MAX_ZOOM = 19;
/** Free space around what is shown, pixels. */
const FIT_MARGIN = 36;
/** The imagery lies below this layer. */
export const ABOVE_IMAGERY = 'footprints';
/** Footprints drawn; the newest stand out. */
const MAX_FOOTPRINTS = 40;
const FRESH_FOOTPRINTS = 6;

export interface Padding {
  top: number;
  right: number;
  bottom: number;
  left: number;
}

export class MapView {
  readonly map: MapLibreMap;
  readonly #styled: Promise<void>;
  #home: number | null = null;
  #keyframes: readonly Keyframe[] = [];
  #sensors: readonly Sensor[] = [];
  #indexOf: (sensorId: string) => number = () => 0;

  constructor(container: HTMLElement, padding: Padding) {
    const free = Math.min(
      container.clientWidth - padding.left - padding.right,
      container.clientHeight - padding.top - padding.bottom,
    );
    this.map = new MapLibreMap({
      container,
      style: style(),
      center: [8, 24],
      // A globe at zoom 0 is 512 / pi pixels wide.
      zoom: Math.log2((Math.max(200, free) * 0.86 * Math.PI) / 512),
      maxZoom: 23,
      attributionControl: false,
      // The address carries the view, so that a link can be sent.
      hash: 'view',
      // Tiles out of sight are asked for again (a cheap 304), as they may have changed meanwhile.
      maxTileCacheSize: 0,
      fadeDuration: 0,
      pitchWithRotate: false,
    });
    this.#styled = new Promise((resolve) => this.map.once('style.load', () => resolve()));
    this.map.setPadding(padding);
    this.map.addControl(new ScaleControl({ maxWidth: 110 }), 'bottom-left');
    this.map.on('moveend', () => this.#drawGraticule());
    this.map.on('load', () => this.#drawGraticule());
    // A tile that fails is asked for again with the next change or after the reconnection, which the page shows.
    this.map.on('error', (event) => console.debug('map', event.error));
    onThemeChange(() => this.#recolour());
  }

  /** Resolves when the map takes data, which is before it has drawn anything. */
  ready(): Promise<void> {
    return this.#styled;
  }

  setEarth(earth: Earth): void {
    this.#data('countries', earth.countries);
    this.#data('borders', { type: 'Feature', properties: {}, geometry: earth.borders });
    this.#data('coasts', { type: 'Feature', properties: {}, geometry: earth.coasts });
  }

  /** Lifts one country, by its id in the base map, out of the others. */
  setHome(id: number | null): void {
    if (id === this.#home) return;
    this.#home = id;
    this.map.setFilter('home', homeFilter(id));
  }

  setTracks(sensors: readonly Sensor[]): void {
    this.#sensors = sensors;
    this.#data('tracks', {
      type: 'FeatureCollection',
      features: sensors
        // Pictures of a card are no way that anybody went.
        .filter((sensor) => sensor.track.length > 1 && sensor.kind !== 'camera')
        .map((sensor) => ({
          type: 'Feature',
          properties: { colour: sensorColour(sensor.index) },
          geometry: { type: 'LineString', coordinates: sensor.track },
        })),
    });
  }

  /** Camera positions of all keyframes, and what the newest of them saw; oldest first. */
  setKeyframes(keyframes: readonly Keyframe[], indexOf: (sensorId: string) => number): void {
    this.#keyframes = keyframes;
    const cameras: Feature[] = [];
    const footprints: Feature[] = [];
    keyframes.forEach((keyframe, index) => {
      const age = keyframes.length - 1 - index;
      const fresh = Math.max(0, 1 - age / FRESH_FOOTPRINTS);
      // A frame with a place and nothing else waits for a pose: a ring without a middle.
      const waits = keyframe.source === 'position_only';
      const properties = { colour: sensorColour(indexOf(keyframe.sensor_id)), fresh, waits };
      if (keyframe.longitude !== null && keyframe.latitude !== null) {
        const coordinates = [keyframe.longitude, keyframe.latitude];
        cameras.push({ type: 'Feature', properties, geometry: { type: 'Point', coordinates } });
      }
      const [first] = keyframe.footprint;
      if (first && keyframe.footprint.length > 2 && age < MAX_FOOTPRINTS) {
        footprints.push({
          type: 'Feature',
          properties,
          geometry: { type: 'Polygon', coordinates: [[...keyframe.footprint, first]] },
        });
      }
    });
    this.#data('cameras', { type: 'FeatureCollection', features: cameras });
    this.#data('footprints', { type: 'FeatureCollection', features: footprints });
    this.#indexOf = indexOf;
  }

  /** Keeps the free part of the window in the middle of the view. */
  setPadding(padding: Padding): void {
    this.map.easeTo({ padding, duration: reducedMotion() ? 0 : 250 });
  }

  /** Turns to `bounds`, with a jump or a flight there. */
  fit(bounds: Bounds, how: 'jump' | 'fly'): void {
    this.map.fitBounds(atLeast(bounds, 120), {
      padding: FIT_MARGIN,
      maxZoom: FIT_MAX_ZOOM,
      duration: how === 'jump' || reducedMotion() ? 0 : 2600,
      essential: false,
    });
  }

  /** Whether all of `bounds` is in the free part of the window and large enough to be seen. */
  shows(bounds: Bounds): boolean {
    const canvas = this.map.getCanvas();
    const padding = this.map.getPadding();
    const a = this.map.project([bounds[0], bounds[1]]);
    const b = this.map.project([bounds[2], bounds[3]]);
    const [left, right] = [padding.left ?? 0, canvas.clientWidth - (padding.right ?? 0)];
    const [top, bottom] = [padding.top ?? 0, canvas.clientHeight - (padding.bottom ?? 0)];
    const inside = [a, b].every((p) => p.x >= left && p.x <= right && p.y >= top && p.y <= bottom);
    return inside && this.map.getZoom() > 11;
  }

  /** Moves the camera along with a sensor. */
  followTo(position: LngLat): void {
    this.map.easeTo({ center: position, duration: reducedMotion() ? 0 : 300, easing: (t) => t });
  }

  #data(source: string, data: GeoJSON): void {
    void this.map.getSource<GeoJSONSource>(source)?.setData(data);
  }

  #drawGraticule(): void {
    const view = this.map.getBounds();
    const zoom = this.map.getZoom();
    if (zoom < 4) {
      this.#data('graticule', line(graticule([-180, -75, 180, 75], 15)));
      return;
    }
    const [west, south, east, north] = [view.getWest(), view.getSouth(), view.getEast(), view.getNorth()];
    const [wide, high] = [east - west, north - south];
    const around: Bounds = [west - wide / 2, south - high / 2, east + wide / 2, north + high / 2];
    this.#data('graticule', line(graticule(around, graticuleStep(Math.max(wide, high), 6))));
  }

  #recolour(): void {
    const next = style();
    for (const layer of next.layers) {
      for (const [property, value] of Object.entries(layer.paint ?? {})) {
        this.map.setPaintProperty(layer.id, property as never, value as never);
      }
    }
    if (next.sky) this.map.setSky(next.sky);
    this.setTracks(this.#sensors);
    this.setKeyframes(this.#keyframes, this.#indexOf);
  }
}

function line(coordinates: number[][][]): GeoJSON {
  return { type: 'Feature', properties: {}, geometry: { type: 'MultiLineString', coordinates } };
}

function homeFilter(id: number | null): FilterSpecification {
  return ['==', ['id'], id ?? -1];
}

/** `colour` far out, the colour of plain paper close up. */
function paper(colour: string, ground: string): ExpressionSpecification {
  return ['interpolate', ['linear'], ['zoom'], PAPER_FROM, colour, PAPER_TO, ground];
}

function faded(opacity: number): ExpressionSpecification {
  return ['interpolate', ['linear'], ['zoom'], PAPER_FROM, opacity, PAPER_TO, 0];
}

function style(): StyleSpecification {
  const colours = palette();
  const geojson = (tolerance = 0.375) => ({ type: 'geojson', data: EMPTY, tolerance }) as const;
  return {
    version: 8,
    projection: { type: ['interpolate', ['linear'], ['zoom'], 9, 'vertical-perspective', 11, 'mercator'] },
    sky: {
      'sky-color': colours.sky,
      'horizon-color': colours.sky,
      'atmosphere-blend': ['interpolate', ['linear'], ['zoom'], 0, 0.7, 4, 0.5, 6, 0],
    },
    sources: {
      countries: geojson(),
      borders: geojson(),
      coasts: geojson(),
      graticule: geojson(),
      footprints: geojson(0),
      tracks: geojson(0),
      cameras: geojson(0),
    },
    layers: [
      { id: 'water', type: 'background', paint: { 'background-color': paper(colours.water, colours.ground) } },
      {
        id: 'land',
        type: 'fill',
        source: 'countries',
        paint: { 'fill-color': paper(colours.land, colours.ground), 'fill-antialias': false },
      },
      {
        id: 'home',
        type: 'fill',
        source: 'countries',
        filter: homeFilter(null),
        paint: { 'fill-color': paper(colours.home, colours.ground), 'fill-antialias': false },
      },
      {
        id: 'graticule',
        type: 'line',
        source: 'graticule',
        paint: {
          'line-color': colours.grid,
          'line-width': 1,
          'line-opacity': ['interpolate', ['linear'], ['zoom'], 2, 0.1, 12, 0.13],
        },
      },
      {
        id: 'borders',
        type: 'line',
        source: 'borders',
        paint: { 'line-color': colours.border, 'line-width': 0.8, 'line-opacity': faded(1) },
      },
      {
        id: 'coasts',
        type: 'line',
        source: 'coasts',
        paint: { 'line-color': colours.coast, 'line-width': 1, 'line-opacity': faded(0.9) },
      },
      {
        id: ABOVE_IMAGERY,
        type: 'fill',
        source: 'footprints',
        paint: { 'fill-color': ['get', 'colour'], 'fill-opacity': ['*', 0.1, ['get', 'fresh']] },
      },
      {
        id: 'footprint-edges',
        type: 'line',
        source: 'footprints',
        paint: {
          'line-color': ['get', 'colour'],
          'line-width': 1.2,
          'line-opacity': ['+', 0.08, ['*', 0.75, ['get', 'fresh']]],
        },
      },
      {
        id: 'track-casings',
        type: 'line',
        source: 'tracks',
        layout: { 'line-cap': 'round', 'line-join': 'round' },
        paint: { 'line-color': colours.casing, 'line-width': 4.5, 'line-opacity': 0.45 },
      },
      {
        id: 'tracks',
        type: 'line',
        source: 'tracks',
        layout: { 'line-cap': 'round', 'line-join': 'round' },
        paint: { 'line-color': ['get', 'colour'], 'line-width': 2, 'line-opacity': 0.95 },
      },
      {
        id: 'cameras',
        type: 'circle',
        source: 'cameras',
        paint: {
          'circle-radius': ['interpolate', ['linear'], ['zoom'], 15, 0.8, 18, 1.8, 20, 3.5],
          'circle-color': colours.casing,
          'circle-stroke-color': ['get', 'colour'],
          'circle-stroke-width': ['interpolate', ['linear'], ['zoom'], 16, 0.7, 19, 1.5],
          'circle-opacity': ['case', ['get', 'waits'], 0, ['+', 0.35, ['*', 0.65, ['get', 'fresh']]]],
          'circle-stroke-opacity': ['+', 0.5, ['*', 0.5, ['get', 'fresh']]],
        },
      },
    ],
  };
}
