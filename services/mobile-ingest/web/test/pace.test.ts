import assert from 'node:assert/strict';
import { test } from 'node:test';
import { paced, persistent } from '../src/pace';

const soon = (ms = 0) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Work that says when it begins, and ends when it is told to. */
function work() {
  const started: number[] = [];
  const ends: (() => void)[] = [];
  const run = () => {
    started.push(performance.now());
    return new Promise<void>((resolve) => ends.push(resolve));
  };
  const begun = async (times: number) => {
    while (started.length < times) await soon(1);
  };
  return { started, ends, run, begun };
}

test('work that is asked for often runs one at a time, and once more at the end', async () => {
  const { started, ends, run, begun } = work();
  const ask = paced(5, run);
  for (let i = 0; i < 10; i += 1) ask();
  await begun(1);
  for (let i = 0; i < 10; i += 1) ask();
  await soon(20);
  assert.equal(started.length, 1, 'not while it runs');
  ends[0]?.();
  await begun(2);
  ends[1]?.();
  await soon(20);
  assert.equal(started.length, 2, 'asked for twenty times');
});

test('work rests before it runs again', async () => {
  const { started, ends, run, begun } = work();
  const ask = paced(50, run);
  ask();
  await begun(1);
  ends[0]?.();
  await soon();
  ask();
  await begun(2);
  assert.ok((started[1] ?? 0) - (started[0] ?? 0) >= 45);
  ends[1]?.();
});

test('work that fails is told of and done again until it is done', async () => {
  let runs = 0;
  const told: unknown[] = [];
  const answer = await persistent(
    1,
    2,
    async () => {
      runs += 1;
      if (runs < 5) throw new Error(`run ${runs}`);
      return 'done';
    },
    (error) => told.push(error),
  );
  assert.equal(answer, 'done');
  assert.deepEqual(told.map(String), [1, 2, 3, 4].map((run) => `Error: run ${run}`));
});
