/** The newest keyframes of the node: a list that is read once, and what the node says of it since. */
import type { Keyframe, Keyframes } from './api';

/** Increments that wait while the list is read; of any more, the list is read again. */
const MAX_WAITING = 200;

export class KeyframeList {
  readonly #most: number;
  #kept: readonly Keyframe[] = [];
  /** How far in the node's order of verdicts the list goes; `null` before it was read. */
  #position: number | null = null;
  /** What was said before and while the list is read; `null` otherwise. */
  #waiting: Keyframes[] | null = [];

  /** Keeps the `most` newest. */
  constructor(most: number) {
    this.#most = most;
  }

  /** Oldest first. */
  get all(): readonly Keyframe[] {
    return this.#kept;
  }

  get isRead(): boolean {
    return this.#position !== null;
  }

  /** The list is being read: what is said meanwhile waits for it. */
  reading(): void {
    this.#waiting = [];
  }

  /** The list as it was read, or `null` when it could not be. False when it has to be read again. */
  read(list: Keyframes | null): boolean {
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    if (!list) return true;
    this.#kept = list.keyframes.slice(-this.#most);
    this.#position = list.position;
    return waiting.every((increment) => increment.position <= list.position || this.add(increment));
  }

  /** What the node said. False when that does not follow from the list, which has to be read again. */
  add(increment: Keyframes): boolean {
    if (this.#waiting) {
      if (this.#waiting.length < MAX_WAITING) this.#waiting.push(increment);
      return true;
    }
    const position = this.#position;
    // The order of a node that lost it begins again.
    if (position === null || (increment.after ?? 0) > position || increment.position < position) return false;
    this.#kept = merged(this.#kept, increment.keyframes, this.#most);
    this.#position = increment.position;
    return true;
  }
}

/** `kept` with `newest` added or put in the place of what they revise. */
function merged(kept: readonly Keyframe[], newest: readonly Keyframe[], most: number): Keyframe[] {
  const revised = new Map(newest.map((keyframe) => [keyframe.frame_id, keyframe]));
  const before = kept.map((keyframe) => {
    const revision = revised.get(keyframe.frame_id);
    revised.delete(keyframe.frame_id);
    return revision ?? keyframe;
  });
  return [...before, ...revised.values()].slice(-most);
}
