/** The memory of reads on the event loop. */
import t from 'tap';
import { ReplyRooms } from '../../../../mount/fuse/event-loop/reply-rooms.js';
import * as abi from '../../../../mount/fuse/protocol/abi.js';
import { addressOf } from '../../../../system/libc.js';

t.test('the data begin at a page, right behind the header', async (t) => {
  const rooms = new ReplyRooms();
  for (const bytes of [1, 4096, 4097, 100_000, abi.MAX_WRITE]) {
    const room = rooms.take(bytes);
    t.ok(room.data.length >= bytes);
    t.equal(addressOf(room.data) % 4096, 0);
    t.equal(addressOf(room.data), room.address + abi.OUT_HEADER_SIZE);
    t.equal(addressOf(room.reply.bytes), room.address);
    room.data.fill('x');
    room.touch(bytes);
    room.reply.header(1, 2, 0, bytes);
    t.equal(room.reply.length, abi.OUT_HEADER_SIZE + bytes);
    t.equal(room.data.toString('latin1', 0, 1), 'x', 'the header does not reach the data');
  }
});

t.test('what one disk has left is not there for another', async (t) => {
  const rooms = new ReplyRooms();
  const [one, other] = [{}, {}];
  const room = rooms.take(8192);
  room.useFor(one);
  room.data.fill('secret');
  rooms.give(room);
  const again = rooms.take(5000);
  t.equal(again, room, 'the memory is used again');
  again.useFor(other);
  t.equal(
    again.data.findIndex((byte) => byte !== 0),
    -1,
  );
  again.data.fill('y');
  again.useFor(other);
  t.equal(again.data[0], 'y'.charCodeAt(0), 'for the same disk nothing is cleared');
});
