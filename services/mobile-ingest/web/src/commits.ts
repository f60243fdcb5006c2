/**
 * Which commits of the map this page knows. An event that tells of one is a hint and may be lost; commits are
 * numbered without holes, so what was lost shows in the next number, or in the newest one that the layer names.
 */
export class Commits {
  /** Newest commit that was told or read after; `null` before the first. */
  #known: number | null = null;
  /** Newest commit of the layer at the last look. */
  #looked = 0;

  /** An event tells of a commit. True when commits before it were never told: tiles may be stale. */
  told(sequence: number): boolean {
    const known = this.#known;
    if (known !== null && sequence <= known) return false;
    this.#known = sequence;
    return known !== null && sequence > known + 1;
  }

  /**
   * Begins a look at the layer; call what it returns with the layer's newest commit. True when tiles may be stale.
   *
   * A look may overtake the events of its moment, so what it saw has to be told by the time of the next look.
   */
  look(): (newest: number) => boolean {
    const before = this.#known;
    return (newest) => {
      const first = this.#known === null;
      const untold = this.#known !== null && this.#looked > this.#known;
      // The numbers begin again when the node has begun a new map.
      const begunAgain = before !== null && newest < before;
      this.#looked = newest;
      if (begunAgain) this.#known = newest;
      else if (first || untold) this.#known = Math.max(newest, this.#known ?? 0);
      return untold || begunAgain;
    };
  }
}
