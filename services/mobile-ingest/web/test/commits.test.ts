import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Commits } from '../src/commits';

test('commits that are told one after the other leave nothing stale', () => {
  const commits = new Commits();
  assert.equal(commits.look()(7), false, 'tiles are loaded after the first look');
  assert.deepEqual([8, 9, 10].map((sequence) => commits.told(sequence)), [false, false, false]);
  assert.equal(commits.look()(10), false);
  assert.equal(commits.look()(10), false);
});

test('a hole in the numbers shows once', () => {
  const commits = new Commits();
  assert.equal(commits.told(3), false, 'what was before the page is loaded with it');
  assert.equal(commits.told(5), true);
  assert.equal(commits.told(6), false);
  assert.equal(commits.told(6), false, 'told again');
});

test('the last commit before a silence is missed at the second look', () => {
  const commits = new Commits();
  commits.look()(4);
  assert.equal(commits.look()(5), false, 'its event may still be on its way');
  assert.equal(commits.look()(5), true, 'it was not');
  assert.equal(commits.look()(5), false, 'the tiles were loaded again');
  assert.equal(commits.told(6), false);
});

test('a look that overtakes events makes nothing stale, and neither does one that they overtake', () => {
  const commits = new Commits();
  commits.look()(1);
  const slow = commits.look();
  assert.equal(commits.told(2), false);
  assert.equal(slow(1), false);
  assert.equal(commits.look()(4), false);
  assert.equal(commits.told(3), false);
  assert.equal(commits.told(4), false);
  assert.equal(commits.look()(4), false);
});

test('a node that begins a new map is noticed', () => {
  const commits = new Commits();
  commits.look()(90);
  commits.told(91);
  assert.equal(commits.look()(1), true);
  assert.equal(commits.look()(1), false);
  assert.equal(commits.told(2), false);
});
