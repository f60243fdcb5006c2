/** Where on Earth: countries and coasts of Natural Earth (1:50 million), from a package, loaded once. */
import type { Feature, FeatureCollection, MultiLineString, MultiPolygon, Polygon, Position } from 'geojson';
import { feature, mesh } from 'topojson-client';
import type { GeometryCollection, Topology } from 'topojson-specification';
import topologyUrl from 'virtual:base-map';
import type { LngLat } from './api';
import { closeRing, distanceMetres, polygonContains, unwrap } from './geo';

export type Country = Feature<Polygon | MultiPolygon, { name: string }>;

export interface Earth {
  countries: FeatureCollection<Polygon | MultiPolygon, { name: string }>;
  borders: MultiLineString;
  coasts: MultiLineString;
}

type Atlas = Topology<{ countries: GeometryCollection<{ name: string }> }>;

export async function loadEarth(): Promise<Earth> {
  const response = await fetch(topologyUrl);
  if (!response.ok) throw new Error(`the base map answered ${response.status}`);
  const topology = (await response.json()) as Atlas;
  const { countries } = topology.objects;
  const collection = feature(topology, countries) as Earth['countries'];
  collection.features.forEach((country, index) => {
    country.id = index;
    const { geometry } = country;
    if (geometry.type === 'Polygon') geometry.coordinates = geometry.coordinates.map(closeRing);
    else geometry.coordinates = geometry.coordinates.map((rings) => rings.map(closeRing));
  });
  return {
    countries: collection,
    borders: continuous(mesh(topology, countries as never, (a, b) => a !== b)),
    coasts: continuous(mesh(topology, countries as never, (a, b) => a === b)),
  };
}

function continuous(lines: MultiLineString): MultiLineString {
  return { ...lines, coordinates: lines.coordinates.map(unwrap) };
}

function polygons(country: Country): Position[][][] {
  const { geometry } = country;
  return geometry.type === 'Polygon' ? [geometry.coordinates] : geometry.coordinates;
}

/** Beyond this a place is called open sea. */
const NEAR_METRES = 60_000;

/**
 * The country of a place. At 1:50 million a beach can lie outside of its country, so the nearest one within
 * 60 km is named as `near`.
 */
export function countryAt(earth: Earth, point: LngLat): { country: Country; near: boolean } | null {
  let nearest: { country: Country; near: boolean } | null = null;
  let best = NEAR_METRES;
  for (const country of earth.countries.features) {
    for (const rings of polygons(country)) {
      // A country that crosses the antimeridian continues beyond 180 degrees.
      const inside = [-360, 0, 360].some((turn) => polygonContains(rings, [point[0] + turn, point[1]]));
      if (inside) return { country, near: false };
      for (const vertex of rings[0] ?? []) {
        const away = distanceMetres(point, [vertex[0] ?? 0, vertex[1] ?? 0]);
        if (away < best) {
          best = away;
          nearest = { country, near: true };
        }
      }
    }
  }
  return nearest;
}
