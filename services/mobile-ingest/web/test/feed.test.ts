import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Feed } from '../src/feed';

/** As much of a document as the list touches. */
class Piece {
  textContent = '';
  hidden = false;
  style = {};
  children: unknown[] = [];
  setAttribute(): void {}
  append(...children: unknown[]): void {
    for (const child of children) if (typeof child === 'string') this.textContent = child;
    this.children.push(...children);
  }
  prepend(child: unknown): void {
    this.children.unshift(child);
  }
  remove(): void {}
}

test('repetitions share a row and their amounts are added', () => {
  const pieces = new Map<string, Piece>();
  const getElementById = (id: string) => pieces.get(id) ?? pieces.set(id, new Piece()).get(id);
  Object.assign(globalThis, { document: { getElementById, createElement: () => new Piece() } });
  const feed = new Feed();
  const missed = (amount: number, now: number) =>
    feed.add({ tone: 'warn', same: 'missed', amount, text: (times, sum) => `${sum} in ${times}` }, now);
  const rows = () =>
    (pieces.get('feed')?.children as Piece[]).map((row) => (row.children[1] as Piece).textContent);
  missed(5, 1_000);
  missed(7, 2_000);
  assert.deepEqual(rows(), ['12 in 2']);
  missed(1, 60_000);
  assert.deepEqual(rows(), ['1 in 1', '12 in 2']);
});
