/**
 * Runs random sequences of calls on several handles, and compares with a model of CipherHandle that follows its
 * contract: which calls resolve, with which value, which wait, and which reject. The bytes are those of node:crypto.
 *
 * KCAPI_TEST_RUNS is the number of sequences. FC_SEED, FC_PATH and FC_REPLAY (fast-check's `replayPath`) repeat a
 * failed one.
 */
import process from "node:process";
import fc from "fast-check";
import { CipherHandle, KcapiError } from "../mod.ts";
import { assert, assertEquals, engine, openFiles, test, times } from "./support/deps.ts";
import { type Bytes, bytes, concat, type Direction, hasCipher, reference, turns, WINDOW } from "./support/support.ts";

const RUNS = Number(process.env.KCAPI_TEST_RUNS ?? times(60, 200));
const SEED = Number(process.env.FC_SEED ?? Math.floor(Math.random() * 2 ** 31));
const PAGE = 4_096;
const MOST_HANDLES = 3;
const NOTHING: Bytes = new Uint8Array(0);

console.log(`model_test: seed ${SEED}`);

// ---- ciphers ----------------------------------------------------------------------------------------------------

interface Cipher {
  readonly algorithm: string;
  readonly keySize: number;
  readonly ivSize: number;
  /** The size of an output block in bytes. */
  readonly chunk: number;
  /** The total length must be a multiple of this number of bytes. */
  readonly block: number;
  /** There is no output before the last update. */
  readonly isMessage: boolean;
}

const CIPHERS: Cipher[] = [
  { algorithm: "ctr(aes)", keySize: 16, ivSize: 16, chunk: 16, block: 1, isMessage: false },
  { algorithm: "cbc(aes)", keySize: 32, ivSize: 16, chunk: 16, block: 16, isMessage: false },
  { algorithm: "ecb(aes)", keySize: 16, ivSize: 0, chunk: 16, block: 16, isMessage: false },
  { algorithm: "rfc3686(ctr(aes))", keySize: 20, ivSize: 8, chunk: 16, block: 1, isMessage: true },
];
if (hasCipher("chacha20")) {
  CIPHERS.push({ algorithm: "chacha20", keySize: 32, ivSize: 16, chunk: 64, block: 1, isMessage: false });
}

function expectedBytes({ algorithm }: Cipher, direction: Direction, key: Bytes, iv: Bytes, input: Bytes): Bytes {
  if (algorithm !== "rfc3686(ctr(aes))") return reference(direction, algorithm, { key, iv }, input);
  const counter = concat([key.slice(16), iv, Uint8Array.of(0, 0, 0, 1)]); // RFC 3686, section 4
  return reference(direction, "ctr(aes)", { key: key.slice(0, 16), iv: counter }, input);
}

// ---- results of promises ----------------------------------------------------------------------------------------

/** The reason of a rejection: the class or the code of an error, or the error object. */
type Reason = typeof TypeError | typeof RangeError | string | { readonly is: unknown };

function isFor(error: unknown, reason: Reason): boolean {
  if (typeof reason === "string") return error instanceof KcapiError && error.code === reason;
  return typeof reason === "object" ? error === reason.is : error instanceof reason;
}

function shown(reason: Reason): string {
  if (typeof reason === "string") return reason;
  return typeof reason === "object" ? `the very ${reason.is}` : reason.name;
}

/** A promise whose result is recorded. */
class Call<T> {
  observed: { readonly value: T } | { readonly error: unknown } | undefined;
  readonly #name: string;

  constructor(name: string, promise: Promise<T>) {
    this.#name = name;
    promise.then((value) => this.observed = { value }, (error) => this.observed = { error });
  }

  /** The value of the promise, which must be fulfilled. */
  get value(): T {
    const { observed } = this;
    assert(observed && "value" in observed, `${this} was to resolve`);
    return observed.value;
  }

  isRefusedFor(reasons: readonly Reason[]): boolean {
    const { observed } = this;
    return observed !== undefined && "error" in observed && reasons.some((reason) => isFor(observed.error, reason));
  }

  assertRefused(...reasons: readonly Reason[]): void {
    assert(this.isRefusedFor(reasons), `${this} was to reject with ${reasons.map(shown).join(" or ")}`);
  }

  assertPending(): void {
    assert(!this.observed, `${this} was to wait`);
  }

  toString(): string {
    if (!this.observed) return `${this.#name}, which waits,`;
    if ("error" in this.observed) return `${this.#name}, which rejected with ${this.observed.error},`;
    const { value } = this.observed;
    return `${this.#name}, which resolved to ${value instanceof Uint8Array ? `${value.length} bytes` : value},`;
  }
}

/** Runs an action that must throw `refusal`, or return if there is none. Returns whether it returned. */
function returns(action: () => unknown, refusal: Reason | undefined): boolean {
  try {
    action();
  } catch (error) {
    if (!refusal) throw error;
    assert(isFor(error, refusal), `a call was to throw ${shown(refusal)}, but threw ${error}`);
    return false;
  }
  assert(!refusal, `a call was to throw ${refusal && shown(refusal)}, but returned`);
  return true;
}

// ---- the model --------------------------------------------------------------------------------------------------

interface Update {
  readonly call: Call<number>;
  readonly buffers: readonly Bytes[];
  readonly total: number;
  /** The length of the stream after this update. */
  readonly end: number;
  /** Its memory was detached while it waited. */
  isGone: boolean;
  isCancelled: boolean;
}

class Stream {
  readonly direction: Direction;
  readonly iv: Bytes;
  readonly inputs: Bytes[] = [];
  readonly outputs: Bytes[] = [];
  /** The updates that are not settled, as far as the test knows. */
  updates: Update[] = [];
  given = 0;
  received = 0;
  isLastGiven = false;

  constructor(direction: Direction, iv: Bytes) {
    this.direction = direction;
    this.iv = iv;
  }

  get outstanding(): number {
    return this.given - this.received;
  }

  get isDone(): boolean {
    return this.isLastGiven && this.outstanding === 0;
  }

  /** A waiting update whose memory was detached. */
  get gone(): Update | undefined {
    return this.updates.find(({ isGone }) => isGone);
  }
}

/** The possible results of a receiving call. It has exactly one of them. */
interface Fate {
  readonly reasons?: readonly Reason[];
  readonly isEnd?: boolean;
  /**
   * Another stream replaced its own while it waited. It rejects in its turn, or earlier with the reason of its signal.
   */
  readonly isOutdated?: boolean;
  /** The minimum and maximum number of bytes. */
  readonly least?: number;
  readonly most?: number;
  /** The index among the outputs of the stream. */
  readonly slot?: number;
}

/** A receiving call. Its promise resolves to bytes, or to undefined at the end. */
interface Receive {
  readonly call: Call<Bytes | undefined>;
  /** Set when the model answers the call. The caller sees the result later. */
  fate: Fate | undefined;
  /** The possible reasons if the handle was closed before the answer. */
  cancelled: readonly Reason[] | undefined;
}

/** A streamOpInto(), or an iterator of streamOp() with all its next() calls. */
class Receiver {
  readonly stream: Stream;
  readonly room: number;
  readonly iterator: AsyncIterator<Bytes> | undefined;
  readonly abort: AbortController | undefined;
  queue: Receive[] = [];
  hasEnded = false;

  constructor(stream: Stream, room: number, iterator?: AsyncIterator<Bytes>, abort?: AbortController) {
    this.stream = stream;
    this.room = room;
    this.iterator = iterator;
    this.abort = abort;
  }
}

class Handle {
  readonly cipher: Cipher;
  readonly key: Bytes;
  stream: Stream | undefined;
  readonly #real: CipherHandle;
  #isClosed = false;
  /** The reason of the stream's failure. */
  #failure: Reason | undefined;
  readonly #streams: Stream[] = [];
  /** The waiting receivers. */
  #receiver: Receiver | undefined;
  readonly #receivers: Receiver[] = [];
  readonly #iterators: Receiver[] = [];
  /** Calls that must reject. */
  #refused: { call: Call<unknown>; reason: Reason }[] = [];

  constructor(real: CipherHandle, cipher: Cipher, key: Bytes) {
    this.#real = real;
    this.cipher = cipher;
    this.key = key;
  }

  /** The results of the current calls depend on timing: memory was detached, or the kernel may need a page. */
  get isVague(): boolean {
    const { stream } = this;
    if (!stream || this.#isClosed || this.#failure) return false;
    // A receiver that the signal rejects leaves the queue after its rejection.
    if (this.#receivers.some(({ queue }) => queue[0]?.fate?.reasons)) return true;
    return !this.cipher.isMessage && (stream.gone !== undefined || stream.outstanding > WINDOW - PAGE);
  }

  get isOver(): boolean {
    return this.#isClosed || this.#failure !== undefined || !this.stream || this.stream.gone !== undefined;
  }

  init(direction: Direction, iv: Bytes): void {
    const start = () => direction === "encrypt" ? this.#real.streamInitEnc(iv) : this.#real.streamInitDec(iv);
    const isBusy = this.stream && !this.stream.isDone;
    if (!returns(start, this.#isClosed ? "EBADF" : this.#failure ?? (isBusy ? "EBUSY" : undefined))) return;
    // Receivers of the old stream reach its end.
    for (const receiver of this.#receivers) {
      const waiting = receiver.hasEnded ? undefined : receiver.queue.find(({ fate }) => !fate);
      if (waiting) {
        waiting.fate = { isEnd: true, isOutdated: true };
        receiver.hasEnded = true;
      }
      for (const receive of receiver.queue) receive.fate ??= { isEnd: true };
      this.#outrun(receiver);
    }
    this.#receiver = undefined;
    this.stream = new Stream(direction, iv);
    this.#streams.push(this.stream);
  }

  update(sizes: readonly number[], seed: number, isLast: boolean): void {
    const buffers = sizes.map((size, i) => bytes(size, seed + i));
    const total = sizes.reduce((sum, size) => sum + size, 0);
    const method = isLast ? "streamUpdateLast" : "streamUpdate";
    const call = new Call(`${method}() of ${total} bytes`, this.#real[method](...buffers));
    const reason = this.#refusal ?? this.#refusalOf(total, isLast);
    if (reason === "EMSGSIZE") this.#failure ??= reason;
    if (reason) return void this.#refused.push({ call, reason });
    const stream = this.stream!;
    stream.inputs.push(...buffers.map((buffer) => buffer.slice()));
    stream.given += total;
    stream.isLastGiven = isLast;
    stream.updates.push({ call, buffers, total, end: stream.given, isGone: false, isCancelled: false });
  }

  /** Sends the last update, with enough bytes for whole blocks. */
  end(sizes: readonly number[], seed: number): void {
    const { block } = this.cipher;
    const total = sizes.reduce((sum, size) => sum + size, this.stream?.given ?? 0);
    this.update([...sizes, (block - total % block) % block], seed, true);
  }

  into(sizes: readonly number[]): void {
    const list = sizes.map((size) => new Uint8Array(size));
    const room = sizes.reduce((sum, size) => sum + size, 0);
    const promise = this.#real.streamOpInto(...list);
    const output = promise.then((count) => count === 0 ? undefined : concat(list).slice(0, count));
    const call = new Call(`streamOpInto() with room for ${room}`, output);
    const reason = this.#refusal ?? (this.#receiver ? "EBUSY" : room < this.cipher.chunk ? RangeError : undefined);
    if (reason) return void this.#refused.push({ call, reason });
    const receiver = new Receiver(this.stream!, room);
    this.#receivers.push(receiver);
    this.#receive(receiver, call);
  }

  iterate(maxBytes: number | undefined): void {
    const abort = new AbortController();
    const room = maxBytes === undefined ? undefined : Math.max(maxBytes, this.cipher.chunk);
    let iterator: AsyncIterator<Bytes> | undefined;
    const open = () => iterator = this.#real.streamOp({ signal: abort.signal, maxBytes: room });
    if (!returns(open, this.#refusal ?? (this.#receiver ? "EBUSY" : undefined))) return;
    const receiver = new Receiver(this.stream!, room ?? Infinity, iterator, abort);
    this.#receivers.push(receiver);
    this.#iterators.push(receiver);
  }

  next(index: number): void {
    const receiver = this.#iterators.at(index % this.#iterators.length);
    if (!receiver) return;
    this.#receive(receiver, new Call("next()", receiver.iterator!.next().then(({ value }) => value)));
  }

  /** Calls return() of the iterator. */
  leave(index: number): void {
    const receiver = this.#iterators.at(index % this.#iterators.length);
    if (!receiver) return;
    const call = new Call("return()", receiver.iterator!.return!().then(({ value }) => value));
    receiver.queue.push({ call, fate: { isEnd: true }, cancelled: undefined });
    this.#ends(receiver);
  }

  leaveAll(): void {
    this.#iterators.forEach((_, index) => this.leave(index));
  }

  abort(index: number, reason: unknown): void {
    const receiver = this.#iterators.at(index % this.#iterators.length);
    if (!receiver) return;
    receiver.abort!.abort(reason);
    this.#outrun(receiver);
  }

  /**
   * If the signal was aborted, a receiver that waits for the end of the old stream rejects with the signal's reason.
   */
  #outrun({ queue, abort }: Receiver): void {
    const first = queue.find(({ fate, call }) => fate?.isOutdated && !call.observed);
    if (first && abort?.signal.aborted) first.fate = { reasons: [{ is: abort.signal.reason }] };
  }

  /** Detaches the last buffer of the last waiting update. */
  detach(): void {
    const update = this.stream?.updates.at(-1);
    const last = update?.buffers.findLast(({ length }) => length > 0);
    if (!update || !last || update.call.observed || !this.isVague) return;
    last.buffer.transfer();
    update.isGone = true;
  }

  close(way: "close" | "dispose"): void {
    const isVague = this.isVague;
    if (way === "close") this.#real.close();
    else this.#real[Symbol.dispose]();
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (isVague) { for (const update of this.stream!.updates) update.isCancelled = !update.call.observed; }
    for (const { queue } of this.#receivers) {
      // A call behind an immediately answered call has not started yet, and may find the handle closed.
      queue.forEach((receive, i) => {
        receive.cancelled = i === 0 ? ["ECANCELED"] : ["ECANCELED", "EBADF"];
        // Its stream ended, but the handle was closed before the answer. Both results are possible.
        if (receive.fate?.isEnd && !receive.call.observed) receive.fate = { isEnd: true, reasons: receive.cancelled };
      });
    }
  }

  /** Undefined if it is refused. */
  reinit(): Handle | undefined {
    let real: CipherHandle | undefined;
    const works = returns(() => real = this.#real.reinit(), this.#isClosed ? "EBADF" : undefined);
    return works ? new Handle(real!, this.cipher, this.key) : undefined;
  }

  /** Checks the results of all calls, after all promises have settled that do not wait for another call. */
  check(): void {
    for (const { call, reason } of this.#refused.splice(0)) call.assertRefused(reason);
    for (const receiver of this.#receivers) this.#checkReceiver(receiver);
    if (this.stream) this.#checkUpdates(this.stream);
  }

  /** Compares the received bytes with those of one call over the whole input. */
  checkBytes(): void {
    for (const { direction, iv, inputs, outputs, received } of this.#streams) {
      const input = concat(inputs);
      const whole = input.subarray(0, input.length - input.length % this.cipher.block);
      const expected = expectedBytes(this.cipher, direction, this.key, iv, whole);
      assertEquals(concat(outputs), expected.subarray(0, received), this.cipher.algorithm);
    }
  }

  /** The reason why the stream refuses every call, if it does. */
  get #refusal(): Reason | undefined {
    if (this.#isClosed) return "EBADF";
    return this.#failure ?? (this.stream ? undefined : "EINVAL");
  }

  #refusalOf(total: number, isLast: boolean): Reason | undefined {
    const { given, isLastGiven } = this.stream!;
    const { block, isMessage } = this.cipher;
    if (isLastGiven) return "EINVAL";
    if (isLast && (given + total) % block > 0) return RangeError;
    return isMessage && given + total > WINDOW ? "EMSGSIZE" : undefined;
  }

  #receive(receiver: Receiver, call: Receive["call"]): void {
    const receive: Receive = { call, fate: undefined, cancelled: undefined };
    receiver.queue.push(receive);
    if (receiver.queue.length === 1) receive.fate = this.#fateOf(receiver, receive);
  }

  /** Returns the current result of a call, or undefined if it waits. */
  #fateOf(receiver: Receiver, { cancelled }: Receive): Fate | undefined {
    const { stream, abort } = receiver;
    const reasons: Reason[] = [];
    if (abort?.signal.aborted) reasons.push({ is: abort.signal.reason });
    if (cancelled) reasons.push(...cancelled);
    else if (stream === this.stream && this.#failure) reasons.push(this.#failure);
    else if (stream === this.stream && this.#isClosed) reasons.push("EBADF");
    // After close() and return() at the same time, both results are possible.
    const isOutdated = stream !== this.stream;
    if (receiver.hasEnded || (isOutdated && cancelled)) return { isEnd: true, ...(cancelled && { reasons }) };
    const isEnd = isOutdated || stream.isDone;
    if (reasons.length === 0 && !isEnd && this.#receiver && this.#receiver !== receiver) reasons.push("EBUSY");
    if (reasons.length > 0 || isEnd) {
      this.#ends(receiver);
      return reasons.length > 0 ? { reasons } : { isEnd };
    }
    this.#receiver = receiver;
    const [least, most] = this.#available(receiver);
    if (most === 0) return undefined;
    if (!receiver.iterator) this.#ends(receiver);
    stream.received += least;
    return { least, most, slot: stream.outputs.push(NOTHING) - 1 };
  }

  #ends(receiver: Receiver): void {
    receiver.hasEnded = true;
    if (this.#receiver === receiver) this.#receiver = undefined;
  }

  /** Returns the number of bytes that a receiver gets now. */
  #available({ room, stream }: Receiver): [least: number, most: number] {
    const { outstanding, isLastGiven, gone, received } = stream;
    if (this.cipher.isMessage && !isLastGiven) return [0, 0];
    const cut = (length: number) => {
      const fit = Math.min(length, room);
      return isLastGiven && fit === outstanding ? fit : fit - fit % this.cipher.chunk;
    };
    if (this.cipher.isMessage) return [cut(outstanding), cut(outstanding)];
    const sent = gone ? Math.max(0, gone.end - gone.total - received) : outstanding;
    return [cut(Math.min(sent, WINDOW - PAGE)), cut(Math.min(outstanding, WINDOW))];
  }

  #checkReceiver(receiver: Receiver): void {
    while (receiver.queue.length > 0) {
      const receive = receiver.queue[0]!;
      const fate = receive.fate ?? this.#fateOf(receiver, receive);
      if (!fate) break;
      receiver.queue.shift();
      this.#checkFate(receiver.stream, receive.call, fate);
    }
    for (const { call } of receiver.queue) call.assertPending();
  }

  #checkFate(stream: Stream, call: Receive["call"], { reasons, isEnd, least = 0, most = 0, slot = 0 }: Fate): void {
    if (reasons && !(isEnd && call.observed && "value" in call.observed)) return call.assertRefused(...reasons);
    const { value } = call;
    if (isEnd) return assertEquals(value, undefined, `${call} was to meet the end`);
    const length = value?.length ?? 0;
    assert(length >= least && length <= most, `${call} was to resolve to ${least} to ${most} bytes`);
    stream.received += length - least;
    stream.outputs[slot] = value!;
    const isWhole = stream.received % this.cipher.chunk === 0 || stream.isDone;
    assert(isWhole, `${call} was to resolve to whole chunks`);
  }

  #checkUpdates(stream: Stream): void {
    let waits = false;
    stream.updates = stream.updates.filter((update) => {
      const { call, total, isGone, isCancelled } = update;
      const { observed } = call;
      if (isCancelled) call.assertRefused("ECANCELED");
      else if (this.#failure && !this.cipher.isMessage) call.assertRefused(this.#failure);
      else if (waits) call.assertPending();
      else if (isGone && observed) {
        call.assertRefused(TypeError);
        this.#failure = { is: (observed as { error: unknown }).error };
      } else if (observed || this.#mustHaveRoom(stream, update)) assertEquals(call.value, total, `${call}`);
      else waits = true;
      return waits;
    });
  }

  /** Whether an update must be complete, because all of it fits. */
  #mustHaveRoom(stream: Stream, { end }: Update): boolean {
    return this.cipher.isMessage || end - stream.received <= WINDOW - PAGE;
  }
}

// ---- random calls -----------------------------------------------------------------------------------------------

/** Several handles of one cipher. */
class World {
  readonly handles: Handle[];
  readonly #cipher: Cipher;
  readonly #calls: (() => void)[] = [];
  #seed = 1;

  constructor(cipher: Cipher) {
    const key = bytes(cipher.keySize, 7);
    this.#cipher = cipher;
    this.handles = [new Handle(CipherHandle.open(cipher.algorithm, { key, engine }), cipher, key)];
  }

  add(call: (handle: Handle) => void, index: number): void {
    this.#calls.push(() => call(this.handles[index % this.handles.length]!));
  }

  /** Returns a different seed for each call. */
  get seed(): number {
    return this.#seed += 100;
  }

  get iv(): Bytes {
    const iv = bytes(this.#cipher.ivSize, this.seed);
    if (iv.length > 0) iv[3]! &= 0x7f; // The block counter of chacha20 must not overflow.
    return iv;
  }

  /**
   * Makes simultaneous calls, without even a microtask between them. A receiver lets the event loop have a turn after
   * 4 ms without one; the calls stay below that, because what follows it at once would find it waiting.
   */
  async makeCalls(): Promise<void> {
    let start = performance.now();
    for (const call of this.#calls.splice(0)) {
      if (performance.now() - start > 2) {
        await this.settle();
        start = performance.now();
      }
      const wasVague = this.#isVague;
      call();
      if (wasVague || this.#isVague) await this.settle();
    }
    await this.settle();
  }

  get #isVague(): boolean {
    return this.handles.some(({ isVague }) => isVague);
  }

  async settle(): Promise<void> {
    await turns(3);
    for (const handle of this.handles) handle.check();
  }

  /** Ends and receives all open streams, and closes everything. */
  async finish(): Promise<void> {
    await this.makeCalls();
    for (const handle of this.handles) {
      if (!handle.isOver) await this.#drain(handle);
      handle.checkBytes();
      handle.close("close");
    }
    await this.settle();
  }

  async #drain(handle: Handle): Promise<void> {
    handle.leaveAll();
    if (!handle.stream!.isLastGiven) handle.end([], this.seed);
    for (let calls = 0; !handle.stream!.isDone; calls++) {
      assert(calls < 100, "the stream does not end");
      handle.into([100, WINDOW]);
      await this.settle();
    }
    handle.into([WINDOW]);
    await this.settle();
  }
}

type Do<T> = (world: World, handle: Handle, args: T) => void;

/** A kind of call. It follows the previous call immediately, or after everything has settled. */
function calls<T>(name: string, args: fc.Arbitrary<T>, run: Do<T>): fc.Arbitrary<fc.AsyncCommand<World, object>> {
  return fc.record({ index: fc.nat(MOST_HANDLES - 1), args, waits: fc.boolean() }).map(({ index, args, waits }) => ({
    check: () => true,
    async run(world) {
      if (waits) await world.makeCalls();
      world.add((handle) => run(world, handle, args), index);
    },
    toString: () => `${waits ? "" : "at once "}${name}(${fc.stringify([index, args]).slice(1, -1)})`,
  }));
}

const none = fc.constant(undefined);
const size = fc.oneof(
  { weight: 6, arbitrary: fc.nat(40) },
  { weight: 4, arbitrary: fc.nat(64).map((blocks) => 16 * blocks) },
  { weight: 2, arbitrary: fc.nat(5_000) },
  { weight: 1, arbitrary: fc.constantFrom(65_536, WINDOW - PAGE, WINDOW, WINDOW + 1, WINDOW + PAGE) },
);
const sizes = fc.array(size, { maxLength: 4 });
const direction = fc.constantFrom("encrypt", "decrypt");

const COMMANDS = [
  calls("init", direction, (world, handle, direction) => handle.init(direction, world.iv)),
  calls("init", direction, (world, handle, direction) => handle.init(direction, world.iv)),
  calls("update", sizes, (world, handle, sizes) => handle.update(sizes, world.seed, false)),
  calls("update", sizes, (world, handle, sizes) => handle.update(sizes, world.seed, false)),
  calls("updateLast", sizes, (world, handle, sizes) => handle.update(sizes, world.seed, true)),
  calls("end", sizes, (world, handle, sizes) => handle.end(sizes, world.seed)),
  calls("into", sizes, (_, handle, sizes) => handle.into(sizes)),
  calls("into", sizes, (_, handle, sizes) => handle.into(sizes)),
  calls("iterate", fc.option(size, { nil: undefined }), (_, handle, maxBytes) => handle.iterate(maxBytes)),
  calls("next", fc.nat(4), (_, handle, index) => handle.next(index)),
  calls("next", fc.nat(4), (_, handle, index) => handle.next(index)),
  calls("leave", fc.nat(4), (_, handle, index) => handle.leave(index)),
  calls("abort", fc.nat(4), (_, handle, index) => handle.abort(index, new Error("the signal's reason"))),
  calls("detach", none, (_, handle) => handle.detach()),
  calls("close", fc.constantFrom("close", "dispose"), (_, handle, way) => handle.close(way)),
  calls("reinit", none, (world, handle) => {
    const other = world.handles.length < MOST_HANDLES ? handle.reinit() : undefined;
    if (other) world.handles.push(other);
  }),
];

/** A large number of sequences is split into several tests, each with its own time limit. */
const PER_TEST = 1_000;

for (let first = 0; first < RUNS; first += PER_TEST) {
  const runs = Math.min(PER_TEST, RUNS - first);
  const seed = SEED + first;
  test(`${runs} random sequences of calls behave like the model (seed ${seed})`, async () => {
    const files = openFiles();
    const commands = fc.commands(COMMANDS, {
      maxCommands: 40,
      size: "max",
      ...(process.env.FC_REPLAY && { replayPath: process.env.FC_REPLAY }),
    });
    const property = fc.asyncProperty(fc.constantFrom(...CIPHERS), commands, async (cipher, commands) => {
      const world = new World(cipher);
      try {
        await fc.asyncModelRun(() => ({ model: world, real: {} }), commands);
        await world.finish();
      } finally {
        for (const handle of world.handles) handle.close("close");
      }
      assertEquals(openFiles(), files);
    });
    const path = process.env.FC_PATH;
    // With a time limit, fast-check reports the commands of a run that does not end.
    await fc.assert(property, { numRuns: runs, seed, timeout: 20_000, ...(path && { path }) });
  });
}
