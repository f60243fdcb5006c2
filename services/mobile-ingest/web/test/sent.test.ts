import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf, SentPictures } from '../src/sent';

function memory(text: string | null = null) {
  const kept = { text };
  return {
    kept,
    getItem: () => kept.text,
    setItem: (_key: string, value: string) => {
      kept.text = value;
    },
  };
}

test('a page that is opened again knows what was sent', () => {
  const browser = memory();
  new SentPictures(browser).add('digest', 'frame');
  assert.equal(new SentPictures(browser).frame('digest'), 'frame');
  assert.equal(new SentPictures(browser).frame('other'), undefined);
});

test('what is remembered is bounded, and the oldest goes', () => {
  const sent = new SentPictures(memory());
  for (let i = 0; i <= 4_000; i += 1) sent.add(`digest-${i}`, `frame-${i}`);
  assert.equal(sent.frame('digest-0'), undefined);
  assert.equal(sent.frame('digest-4000'), 'frame-4000');
});

test('a memory that is damaged or full costs a second sending only', () => {
  for (const text of ['{', 'null', '[1, ["a"], ["digest", "frame"]]']) {
    const sent = new SentPictures({ ...memory(text), setItem: () => assert.fail('full') });
    sent.add('new', 'frame-2');
    assert.equal(sent.frame('new'), 'frame-2');
  }
  assert.equal(new SentPictures(memory('[["digest", "frame"], 1]')).frame('digest'), 'frame');
});

test('a digest is that of the bytes', async () => {
  assert.equal(await digestOf(new Blob(['abc'])), 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
});
