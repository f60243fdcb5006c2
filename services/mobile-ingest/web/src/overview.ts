/** What the map turns to by itself, and when. */
import type { Bounds, LngLat } from './api';
import { contains, grown, pointBounds, union } from './geo';

/** What is wider or higher than this cannot be seen as a whole: a view of all of it shows specks. */
const WIDE_DEGREES = 0.3;
/** About the part of a view that stays free around what it was turned to. */
const FREE_SHARE = 0.04;

/** The imagery and who is live; only who is live when both together are too wide to be seen. */
export function everything(imagery: Bounds | null, live: readonly LngLat[]): Bounds | null {
  const alive = live.reduce<Bounds | null>((bounds, point) => union(bounds, pointBounds(point)), null);
  if (!imagery || !alive) return alive ?? imagery;
  const both = union(imagery, alive);
  return isWide(both) ? alive : both;
}

function isWide([west, south, east, north]: Bounds): boolean {
  return east - west > WIDE_DEGREES || north - south > WIDE_DEGREES;
}

/**
 * Remembers what the view was turned to: some bounds are never shown as a whole and large enough, and turning to
 * them again would change nothing.
 */
export class Turns {
  #turned: Bounds | null = null;

  /** Whether the view has to turn to `bounds`, which it `shows` or not. */
  due(bounds: Bounds, shows: boolean): boolean {
    return !shows && !(this.#turned && contains(this.#turned, bounds));
  }

  /** The view turns to `bounds`. */
  to(bounds: Bounds): void {
    this.#turned = grown(bounds, FREE_SHARE);
  }

  /** The window has another size or shape: what was shown in it says nothing any more. */
  forget(): void {
    this.#turned = null;
  }
}
