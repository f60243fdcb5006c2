/** The newest keyframes, kept by reading only those that are new. */
import type { Keyframe } from './api';

/** `kept` with `newest` added or put in the place of what they revise, both oldest first; at most `most`. */
export function merged(kept: readonly Keyframe[], newest: readonly Keyframe[], most: number): Keyframe[] {
  const revised = new Map(newest.map((keyframe) => [keyframe.frame_id, keyframe]));
  const before = kept.map((keyframe) => {
    const revision = revised.get(keyframe.frame_id);
    revised.delete(keyframe.frame_id);
    return revision ?? keyframe;
  });
  return [...before, ...revised.values()].slice(-most);
}

/** Whether nothing between `kept` and `newest` was left out: they have one in common, or nothing was kept. */
export function follows(kept: readonly Keyframe[], newest: readonly Keyframe[]): boolean {
  const ids = new Set(kept.map((keyframe) => keyframe.frame_id));
  return kept.length === 0 || newest.some((keyframe) => ids.has(keyframe.frame_id));
}
