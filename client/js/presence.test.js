import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { CloseError, PresenceError, PresenceSocket } from "./presence.js";
import { clock, FakeWebSocket, fire, page, settle } from "./rig.js";

const random = Math.random;
let answers; // of GET, by turn
let gets;

beforeEach(() => {
	clock.install();
	page();
	FakeWebSocket.all = [];
	FakeWebSocket.serve = null;
	globalThis.WebSocket = FakeWebSocket;
	answers = [];
	gets = [];
	globalThis.fetch = async (url, o) => {
		gets.push([url, o]);
		const answer = answers.shift();
		if (!answer) throw new TypeError("no network");
		return { status: answer[0], headers: new Headers(answer[1] ?? {}) };
	};
	Math.random = () => 0.5;
});
afterEach(() => { Math.random = random; });

async function dial(protocols, options) {
	const s = new PresenceSocket("/ws", protocols, options);
	s.log = [];
	for (const kind of ["open", "message", "down", "close", "error"]) {
		s.addEventListener(kind, (e) => s.log.push(kind === "message" ? e.data : kind === "down" ? `down ${e.code}` : kind === "close" ? `close ${e.code}` : kind));
	}
	await settle();
	return s;
}

async function connected(protocols, options) {
	const s = await dial(protocols, options);
	FakeWebSocket.last.open();
	await settle();
	return s;
}

const dials = () => FakeWebSocket.all.length;

// redialed lets time pass until the next dial.
async function redialed() {
	for (const before = dials(); dials() === before;) await clock.tick(10);
}

test("it looks like a WebSocket", async () => {
	assert.deepEqual([PresenceSocket.CONNECTING, PresenceSocket.OPEN, PresenceSocket.CLOSING, PresenceSocket.CLOSED], [0, 1, 2, 3]);
	const s = await dial(["chat", "talk"]);
	assert.equal(s.url, "wss://example.com/ws");
	assert.deepEqual(FakeWebSocket.last.protocols, ["chat", "talk"]);
	assert.equal(s.readyState, s.CONNECTING);
	assert.equal(s.binaryType, "blob");
	s.binaryType = "arraybuffer";
	assert.equal(FakeWebSocket.last.binaryType, "arraybuffer");
	const seen = [];
	s.onopen = (e) => seen.push(e.type);
	s.onmessage = (e) => seen.push(e.data);
	s.onclose = (e) => seen.push(["close", e.code, e.reason, e.wasClean]);
	FakeWebSocket.last.open("chat").message("hello");
	assert.equal(s.readyState, s.OPEN);
	assert.equal(s.protocol, "chat");
	s.send("words");
	assert.deepEqual(FakeWebSocket.last.texts(), ["words"]);
	s.close(3000, "enough");
	assert.equal(s.readyState, s.CLOSING);
	assert.deepEqual(FakeWebSocket.last.closed, { code: 3000, reason: "enough" });
	FakeWebSocket.last.end(3000, "enough");
	assert.equal(s.readyState, s.CLOSED);
	assert.deepEqual(seen, ["open", "hello", ["close", 3000, "enough", true]]);
	assert.throws(() => s.send("more"), { name: "InvalidStateError" });
	await clock.tick(1e6);
	assert.equal(dials(), 1);
	assert.equal(clock.waiting(), 0);
});

test("bad arguments are refused as WebSocket does", () => {
	assert.throws(() => new PresenceSocket("ftp://x"), { name: "SyntaxError" });
	assert.throws(() => new PresenceSocket("wss://x/#y"), { name: "SyntaxError" });
	assert.throws(() => new PresenceSocket("wss://"), { name: "SyntaxError" });
	const s = new PresenceSocket("ws://x/");
	assert.throws(() => s.close(1001), { name: "InvalidAccessError" });
	assert.throws(() => s.close(3000, "x".repeat(124)), { name: "SyntaxError" });
});

test("ready, and messages with for await", async () => {
	const s = await dial();
	let ready = false;
	s.ready.then(() => { ready = true; });
	await settle();
	assert.equal(ready, false);
	FakeWebSocket.last.open();
	await settle();
	assert.equal(ready, true);
	const seen = [];
	const done = (async () => { for await (const m of s) seen.push(m); })();
	await settle();
	FakeWebSocket.last.message("a");
	FakeWebSocket.last.message("");
	FakeWebSocket.last.message("b");
	await settle();
	FakeWebSocket.last.end(1006); // a reconnect does not end it
	await clock.tick(2_000);
	FakeWebSocket.last.open().message("c");
	await settle();
	s.close();
	FakeWebSocket.last.end(1000);
	await done;
	assert.deepEqual(seen, ["a", "b", "c"], "and no heartbeat");
	await assert.rejects(s.ready, { name: "CloseError" });
});

test("for await throws when the end was not wanted, and when it is too slow", async () => {
	const s = await connected(undefined, { iteratorMessages: 2 });
	const it = s[Symbol.asyncIterator]();
	for (const m of ["a", "b", "c"]) FakeWebSocket.last.message(m);
	assert.equal((await it.next()).value, "a");
	assert.equal((await it.next()).value, "b");
	await assert.rejects(it.next(), { name: "QuotaExceededError" });
	const other = s[Symbol.asyncIterator]().next();
	FakeWebSocket.last.end(4403, "kicked");
	await assert.rejects(other, { name: "CloseError", code: 4403 });
});

test("it announces itself and hides heartbeats", async () => {
	const s = await connected();
	assert.deepEqual(FakeWebSocket.last.sent, [""]);
	FakeWebSocket.last.message("");
	assert.deepEqual(s.log, ["open"]);
});

test("a quiet server is given up after two intervals, and not before", async () => {
	const s = await connected();
	await clock.tick(49_999);
	assert.deepEqual(s.log, ["open"]);
	await clock.tick(1);
	assert.deepEqual(s.log, ["open", "down 1006"]);
	assert.equal(s.readyState, s.CONNECTING);
});

test("a server that beats is never given up, whatever this side does", async () => {
	const s = await connected();
	for (let i = 0; i < 100; i++) {
		for (let j = 0; j < 5; j++) {
			s.send("words");
			await clock.tick(5_000);
		}
		FakeWebSocket.last.message("");
	}
	assert.deepEqual(s.log, ["open"]);
	assert.equal(dials(), 1);
	assert.equal(FakeWebSocket.last.sent.filter((m) => m === "").length, 1, "no heartbeat of our own");
});

test("any message is life", async () => {
	const s = await connected(undefined, { interval: 1_000 });
	for (let i = 0; i < 10; i++) {
		await clock.tick(1_900);
		FakeWebSocket.last.message("news");
	}
	assert.equal(dials(), 1);
	await clock.tick(2_000);
	assert.equal(s.readyState, s.CONNECTING);
});

test("heartbeat off: nothing is announced, nothing watched", async () => {
	await connected(undefined, { heartbeat: false });
	await clock.tick(1e6);
	assert.deepEqual(FakeWebSocket.last.sent, []);
	assert.equal(dials(), 1);
});

test("after a sleep it asks before it gives up", async () => {
	const s = await connected();
	clock.sleep(3_600_000);
	await clock.due();
	assert.deepEqual(s.log, ["open"], "what came meanwhile has not been looked at");
	assert.deepEqual(FakeWebSocket.last.sent, ["", ""]);
	FakeWebSocket.last.message("");
	await clock.tick(20_000);
	assert.deepEqual(s.log, ["open"]);
	clock.sleep(3_600_000);
	await clock.due();
	await clock.tick(5_000);
	assert.deepEqual(s.log, ["open", "down 1006"]);
});

test("online, visibilitychange and pageshow look at once", async () => {
	for (const happen of [
		() => fire(window, "online"),
		() => fire(document, "visibilitychange"),
		() => fire(window, "pageshow", { persisted: true }),
	]) {
		const s = await connected();
		happen();
		assert.deepEqual(FakeWebSocket.last.sent, ["", ""]);
		await clock.tick(4_999);
		assert.deepEqual(s.log, ["open"]);
		await clock.tick(1);
		assert.deepEqual(s.log, ["open", "down 1006"]);
		// And a wait is cut short.
		const before = dials();
		happen();
		await settle();
		assert.equal(dials(), before + 1);
		s.close();
		await settle();
	}
});

test("the way back: the connection is given up before and dialed anew", async () => {
	const s = await connected();
	const first = FakeWebSocket.last;
	fire(window, "pagehide", { persisted: true });
	assert.deepEqual(first.closed, { code: 1000, reason: undefined });
	clock.sleep(600_000);
	await clock.due();
	assert.equal(dials(), 1, "nothing is dialed by a page that was put away");
	fire(window, "pageshow", { persisted: true });
	await settle();
	assert.equal(dials(), 2);
	FakeWebSocket.last.open();
	assert.deepEqual(s.log, ["open", "down 1001", "open"]);
});

test("reconnects are spread at random up to a bound that doubles, to the cap", async () => {
	Math.random = () => 0.999999;
	const s = await connected();
	const waits = [];
	s.ondown = (e) => waits.push(Math.round(e.retryIn));
	for (let i = 0; i < 7; i++) {
		FakeWebSocket.last.end(1006);
		await redialed();
	}
	assert.deepEqual(waits, [2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
	Math.random = () => 0;
	FakeWebSocket.last.end(1006);
	await settle();
	assert.equal(waits.at(-1), 0, "full jitter");
});

test("only a stable connection resets the bound", async () => {
	Math.random = () => 0.999999;
	const s = await connected();
	const waits = [];
	s.ondown = (e) => waits.push(Math.round(e.retryIn));
	for (const lasts of [1_000, 9_999, 10_000, 1_000]) {
		await clock.tick(lasts);
		FakeWebSocket.last.end(1006);
		await redialed();
		FakeWebSocket.last.open();
	}
	assert.deepEqual(waits, [2_000, 4_000, 2_000, 4_000]);
});

for (const code of [1000, 1001, 1002, 1006, 1008, 1009, 1011, 3000, 3999]) {
	test(`${code} is an ordinary reconnect`, async () => {
		const s = await connected();
		FakeWebSocket.last.end(code);
		await clock.tick(1_000);
		assert.equal(dials(), 2);
		FakeWebSocket.last.open();
		assert.deepEqual(s.log, ["open", `down ${code}`, "open"]);
	});
}

for (const code of [1012, 1013]) {
	test(`${code} waits as long as it is told`, async () => {
		const s = await connected();
		FakeWebSocket.last.end(code, "retry=12345");
		fire(window, "online"); // the server knows better
		await clock.tick(12_344);
		assert.equal(dials(), 1);
		await clock.tick(1);
		assert.equal(dials(), 2);
		FakeWebSocket.last.open().end(code, "soon");
		await clock.tick(1_000);
		assert.equal(dials(), 3, "without a time: as any other");
		assert.equal(s.readyState, s.CONNECTING);
	});
}

test("a wait that is told again without a stable connection between is only the least", async () => {
	Math.random = () => 0.999999;
	const s = await connected();
	const waits = [];
	s.ondown = (e) => waits.push(Math.round(e.retryIn));
	for (const [lasts, told] of [[0, 0], [0, 0], [9_999, 0], [0, 5_000], [0, 15_000], [0, 0], [10_000, 0], [0, 0], [10_000, 3_000], [0, 3_000]]) {
		await clock.tick(lasts);
		FakeWebSocket.last.end(1012, `retry=${told}`);
		await redialed();
		FakeWebSocket.last.open();
	}
	assert.deepEqual(waits, [0, 2_000, 4_000, 8_000, 16_000, 30_000, 0, 2_000, 3_000, 3_000]);
});

for (const code of [4000, 4403, 4409, 4999]) {
	test(`${code} stops and tells`, async () => {
		const s = await connected();
		FakeWebSocket.last.end(code, "why");
		await clock.tick(1e6);
		assert.equal(dials(), 1);
		assert.deepEqual(s.log, ["open", "error", `close ${code}`]);
		assert.equal(s.readyState, s.CLOSED);
		s.reconnect();
		await settle();
		assert.equal(dials(), 2);
	});
}

test("4401 without auth stops", async () => {
	const s = await connected();
	FakeWebSocket.last.end(4401);
	await clock.tick(1e6);
	assert.deepEqual(s.log, ["open", "error", "close 4401"]);
});

test("4401 with auth redials once, and again only after a stable connection", async () => {
	let tokens = 0;
	const s = await connected(undefined, { auth: () => ({ query: { token: ++tokens } }) });
	assert.equal(FakeWebSocket.last.url, "wss://example.com/ws?token=1");
	FakeWebSocket.last.end(4401);
	await clock.tick(0);
	assert.equal(FakeWebSocket.last.url, "wss://example.com/ws?token=2");
	FakeWebSocket.last.open();
	await clock.tick(10_000);
	FakeWebSocket.last.end(4401);
	await clock.tick(0);
	assert.equal(dials(), 3, "it was stable");
	FakeWebSocket.last.open().end(4401);
	await clock.tick(1e6);
	assert.equal(dials(), 3);
	assert.equal(s.readyState, s.CLOSED);
});

test("auth is asked before each dial; false stops, a failure tries again", async () => {
	const turns = [() => "/other?t=1", () => { throw new Error("no token now"); }, async () => ({ protocols: ["p"] }), () => false];
	const s = await connected(undefined, { auth: () => turns.shift()() });
	assert.equal(FakeWebSocket.last.url, "wss://example.com/other?t=1");
	FakeWebSocket.last.end(1006);
	await clock.tick(1_000);
	assert.equal(dials(), 1);
	await clock.tick(2_000);
	assert.equal(dials(), 2);
	assert.deepEqual(FakeWebSocket.last.protocols, ["p"]);
	FakeWebSocket.last.open().end(1006);
	await clock.tick(8_000);
	assert.equal(dials(), 2);
	assert.equal(s.log.at(-1), "close 4401");
});

test("4429 comes back at the cap", async () => {
	await connected();
	FakeWebSocket.last.end(4429);
	fire(window, "online");
	await clock.tick(14_999);
	assert.equal(dials(), 1);
	await clock.tick(15_001);
	assert.equal(dials(), 2);
});

test("4408 waits for the user or the next send", async () => {
	const s = await connected();
	FakeWebSocket.last.end(4408);
	fire(window, "online");
	fire(document, "visibilitychange");
	await clock.tick(1e6);
	assert.equal(dials(), 1);
	fire(document, "pointerdown");
	await settle();
	assert.equal(dials(), 2);
	FakeWebSocket.last.open().end(4408);
	await clock.tick(1e6);
	assert.equal(dials(), 2);
	s.send("here again");
	await settle();
	FakeWebSocket.last.open();
	assert.deepEqual(FakeWebSocket.last.texts(), ["here again"]);
});

for (const status of [401, 403]) {
	test(`an upgrade refused with ${status} stops and tells`, async () => {
		const s = await dial();
		answers = [[status]];
		FakeWebSocket.last.end(1006);
		await clock.tick(1e6);
		assert.equal(gets.length, 1);
		assert.equal(gets[0][0], "https://example.com/ws");
		assert.equal(gets[0][1].credentials, "include");
		assert.deepEqual(s.log, ["error", `close 4${status}`]);
		assert.equal(dials(), 1);
	});
}

for (const status of [429, 503]) {
	test(`an upgrade refused with ${status} waits as long as it says`, async () => {
		await dial();
		answers = [[status, { "Retry-After": "20" }]];
		FakeWebSocket.last.end(1006);
		await clock.tick(19_999);
		assert.equal(dials(), 1);
		await clock.tick(2_001);
		assert.equal(dials(), 2);
		answers = [[status, { "Retry-After": new Date(clock.now() + 20_000).toUTCString() }]];
		FakeWebSocket.last.end(1006);
		await clock.tick(18_000);
		assert.equal(dials(), 2);
		await clock.tick(4_000);
		assert.equal(dials(), 3);
		answers = [[status]];
		FakeWebSocket.last.end(1006);
		await clock.tick(4_000);
		assert.equal(dials(), 4, "without a time: as any other");
	});
}

for (const after of ["0", "-1", "soon", new Date(0).toUTCString()]) {
	test(`Retry-After: ${after} says nothing: the waits grow as any others`, async () => {
		await dial();
		const waits = [];
		for (let i = 0; i < 6; i++) {
			answers = [[503, { "Retry-After": after }]];
			FakeWebSocket.last.end(1006);
			const refused = clock.now();
			await redialed();
			waits.push(clock.now() - refused);
		}
		assert.deepEqual(waits, [1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
	});
}

for (const answer of [[426], [200], [500], [404], null]) {
	test(`an upgrade that failed, and GET says ${answer ?? "nothing"}: try again`, async () => {
		await dial();
		answers = answer ? [answer] : [];
		FakeWebSocket.last.end(1006);
		await clock.tick(1_000);
		assert.equal(gets.length, 1);
		assert.equal(dials(), 2);
	});
}

test("what asks the server why is named, so that it can be told from a page that is opened", async () => {
	await dial();
	answers = [[426]];
	FakeWebSocket.last.end(1006);
	await settle();
	assert.equal(gets[0][1].headers.Accept.split(",")[0], "application/vnd.presence.probe");
});

test("no connection opens that offers presence.v1, though the server answers: that is told once", async () => {
	const s = await dial();
	const room = s.presence("room");
	let joined = false;
	s.join("room").then(() => { joined = true; });
	const told = [];
	for (const [who, of] of [["room", room], ["socket", s]]) of.addEventListener("error", (e) => told.push([who, e.error.code]));
	const fail = async (...given) => {
		for (const answer of given) {
			answers = answer ? [answer] : [];
			FakeWebSocket.last.end(1006);
			await redialed();
		}
	};
	await fail([400], [400], null, [400], [400], [502], [503], [400], [429], [400], [500], [400], [400]);
	assert.deepEqual(told, [], "not three in a row");
	await fail([400], [400], [400]);
	assert.deepEqual(told, [["room", "no-presence"], ["socket", "no-presence"]]);
	assert.equal(room.live, false);
	FakeWebSocket.last.open("presence.v1").told({ t: "welcome", v: 1, user: "ann", session: "1", interval: 0 });
	await settle();
	assert.deepEqual(FakeWebSocket.last.asked().map((m) => m.t), ["join", "follow"]);
	FakeWebSocket.last.told({ t: "ok", id: 1 });
	FakeWebSocket.last.told({ t: "snapshot", topic: "room", version: 1, first: true, members: [] });
	await settle();
	assert.equal(joined && room.live, true, "it was tried on");
	await room.ready;
	await fail(null, [400], [404], [426]);
	assert.equal(told.length, 4, "another time is told again");
	s.close();

	const plain = await dial();
	await fail([400], [400], [400], [400]);
	assert.equal(plain.log.includes("error"), false, "it does not offer presence.v1");
});

test("an endpoint that chooses the app's subprotocol alone says at once what it cannot do", async () => {
	const s = await dial(["chat"], { presence: true });
	const room = s.presence("room");
	const early = s.join("early");
	const errors = [];
	room.addEventListener("error", (e) => errors.push(e.error.code));
	FakeWebSocket.last.open("chat");
	const no = { name: "PresenceError", code: "no-presence" };
	await assert.rejects(early, no);
	for (const ask of [s.join("late"), s.leave("other"), s.setMeta(1), s.setStatus("busy"), s.presence("other").ready]) await assert.rejects(ask, no);
	assert.deepEqual(errors, ["no-presence"]);
	assert.equal(s.readyState, s.OPEN);
	assert.deepEqual(FakeWebSocket.last.asked(), []);
	FakeWebSocket.last.end(1006);
	await redialed();
	FakeWebSocket.last.open("presence.v1+chat").told({ t: "welcome", v: 1, user: "ann", session: "1", interval: 0 });
	assert.deepEqual(FakeWebSocket.last.asked().map((m) => m.topic), ["room", "other"]);
});

test("errors say what it is and the code", async () => {
	assert.equal(new PresenceError("forbidden", "not allowed").message, "presence: not allowed (forbidden)");
	assert.equal(new CloseError(4401, "HTTP 401").message, "presence: closed: HTTP 401 (4401)");
	assert.equal(new CloseError(1000, "").message, "presence: closed (1000)");
});

test("a dial that hangs is given up", async () => {
	await dial();
	await clock.tick(16_000);
	assert.equal(FakeWebSocket.all[0].closed !== null, true);
	assert.equal(dials(), 2);
});

test("the outbox keeps what is sent before, is bounded, and says so", async () => {
	const s = await dial(undefined, { outboxMessages: 2, outboxBytes: 10 });
	const bytes = new Uint8Array([1, 2, 3]);
	s.send("ab");
	s.send(bytes);
	bytes[0] = 9;
	assert.equal(s.bufferedAmount, 5);
	assert.throws(() => s.send("x"), { name: "QuotaExceededError" });
	FakeWebSocket.last.open();
	assert.equal(FakeWebSocket.last.texts()[0], "ab");
	assert.deepEqual(new Uint8Array(FakeWebSocket.last.texts()[1]), new Uint8Array([1, 2, 3]), "as it was when it was sent");
	FakeWebSocket.last.end(1006);
	assert.throws(() => s.send("x".repeat(11)), { name: "QuotaExceededError" });
	s.send("last words");
	let unsent;
	s.onclose = (e) => { unsent = e.unsent; };
	s.close();
	await settle();
	assert.deepEqual(unsent, ["last words"]);
});

test("what is sent while the connection is closing is kept for the next", async () => {
	const s = await connected();
	FakeWebSocket.last.readyState = 2;
	s.send("late");
	FakeWebSocket.last.end(1006);
	await clock.tick(1_000);
	FakeWebSocket.last.open();
	assert.deepEqual(FakeWebSocket.last.texts(), ["late"]);
});

test("close while waiting, while dialing, and without an answer", async () => {
	let s = await connected();
	FakeWebSocket.last.end(1006);
	s.close();
	await clock.tick(1e6);
	assert.equal(dials(), 1);
	assert.equal(s.log.at(-1), "close 1006");
	s = await dial();
	s.close(1000);
	await clock.tick(1e6);
	assert.equal(s.log.at(-1), "close 1000");
	s = await connected();
	s.close();
	await clock.tick(5_000);
	assert.equal(s.log.at(-1), "close 1006");
	assert.equal(clock.waiting(), 0);
});

// ---- presence.v1

const member = (user, more) => ({ user, state: "online", away: false, sessions: 1, since: 1, ...more });

async function welcomed(options) {
	const s = await dial(undefined, { presence: true, ...options });
	FakeWebSocket.last.open("presence.v1").told({ t: "welcome", v: 1, user: "ann", session: "1", interval: 1_000 });
	await settle();
	return s;
}

test("presence.v1 is offered when it is wanted, with the app's protocols", async () => {
	await dial();
	assert.deepEqual(FakeWebSocket.last.protocols, []);
	let s = await dial(undefined, { presence: true });
	assert.deepEqual(FakeWebSocket.last.protocols, ["presence.v1"]);
	s = await dial(["a", "b"], { presence: true });
	assert.deepEqual(FakeWebSocket.last.protocols, ["presence.v1+a", "presence.v1+b", "a", "b"]);
	FakeWebSocket.last.open("presence.v1+b");
	assert.equal(s.protocol, "b");
	s = new PresenceSocket("/ws");
	s.presence("room");
	await settle();
	assert.deepEqual(FakeWebSocket.last.protocols, ["presence.v1"], "asked for in the same turn");
	s = await connected();
	s.presence("room");
	await clock.tick(0);
	assert.deepEqual(FakeWebSocket.last.protocols, ["presence.v1"], "asked for later: dialed anew");
});

test("the welcome sets the interval", async () => {
	const s = await welcomed();
	assert.equal(s.user, "ann");
	await clock.tick(1_999);
	assert.equal(s.readyState, s.OPEN);
	await clock.tick(1);
	assert.equal(s.readyState, s.CONNECTING);
});

test("messages that begin with U+0001 are the app's where presence.v1 was not chosen", async () => {
	const s = await connected();
	FakeWebSocket.last.message("\u0001{}");
	assert.deepEqual(s.log, ["open", "\u0001{}"]);
});

test("members are live", async () => {
	const s = await welcomed({ heartbeat: false });
	const room = s.presence("room");
	assert.equal(s.presence("room"), room);
	const log = [];
	for (const kind of ["join", "leave", "update", "snapshot", "count"]) room.addEventListener(kind, (e) => log.push(e.user ? `${kind} ${e.user}` : kind));
	room.addEventListener("leave", (e) => assert.deepEqual(e.member, member(e.user, { state: "offline", sessions: 0 })));
	const ws = FakeWebSocket.last;
	assert.deepEqual(ws.asked(), [{ t: "follow", topic: "room", id: 1 }]);
	ws.told({ t: "ok", id: 1 });
	ws.told({ t: "snapshot", topic: "room", version: 7, first: true, more: true, members: [member("ann")] });
	assert.equal(room.live, false, "half a snapshot is none");
	ws.told({ t: "snapshot", topic: "room", version: 7, members: [member("bob")] });
	assert.deepEqual([...room.members.keys()], ["ann", "bob"]);
	assert.equal((await room.ready).live, true);
	ws.told({ t: "delta", topic: "room", version: 8, changes: [{ k: "join", member: member("cat") }, { k: "update", member: member("bob", { away: true }) }, { k: "leave", user: "ann", cause: "lost" }] });
	assert.deepEqual(log, ["snapshot", "join cat", "update bob", "leave ann"]);
	assert.equal(room.members.get("bob").away, true);
	assert.equal(room.users, 2);

	// The connection breaks: what was known stays, and the next snapshot tells the difference.
	log.length = 0;
	ws.end(1006);
	assert.equal(room.live, false);
	assert.equal(room.users, 2);
	await clock.tick(1_000);
	FakeWebSocket.last.open("presence.v1").told({ t: "welcome", v: 1, user: "ann", session: "2", interval: 0 });
	assert.deepEqual(FakeWebSocket.last.asked().map((m) => m.t), ["follow"]);
	FakeWebSocket.last.told({ t: "snapshot", topic: "room", version: 1, first: true, members: [member("bob"), member("dan")] });
	assert.deepEqual(log, ["leave cat", "join dan", "update bob", "snapshot"].sort((a, b) => log.indexOf(a) - log.indexOf(b)));
	assert.equal(log.length, 4);

	// A gap: asked for anew, once, and what comes until then is not believed.
	FakeWebSocket.last.told({ t: "delta", topic: "room", version: 3, changes: [{ k: "join", member: member("eve") }] });
	FakeWebSocket.last.told({ t: "delta", topic: "room", version: 4, changes: [] });
	FakeWebSocket.last.told({ t: "delta", topic: "room", version: 2, changes: [{ k: "join", member: member("eve") }] });
	assert.deepEqual(FakeWebSocket.last.asked().map((m) => m.t), ["follow", "follow"]);
	assert.deepEqual([...room.members.keys()], ["bob", "dan"]);
	FakeWebSocket.last.told({ t: "snapshot", topic: "room", version: 9, first: true, members: [member("bob"), member("dan")] });
	FakeWebSocket.last.told({ t: "delta", topic: "room", version: 10, changes: [{ k: "leave", user: "dan" }] });
	assert.deepEqual([...room.members.keys()], ["bob"]);
	room.close();
	assert.equal(FakeWebSocket.last.asked().at(-1).t, "unfollow");
});

test("a topic that is counted has no names; those that come after it are no joins", async () => {
	const s = await welcomed({ heartbeat: false });
	const room = s.presence("room");
	const log = [];
	for (const kind of ["join", "leave", "update", "snapshot", "count"]) room.addEventListener(kind, (e) => log.push(e.user ? `${kind} ${e.user}` : kind));
	const ws = FakeWebSocket.last;
	ws.told({ t: "snapshot", topic: "room", version: 1, first: true, members: [member("ann"), member("bob")] });
	ws.told({ t: "count", topic: "room", version: 2, users: 5_000, sessions: 6_000 });
	assert.deepEqual([room.countOnly, room.users, room.sessions, room.members.size], [true, 5_000, 6_000, 0]);
	ws.told({ t: "snapshot", topic: "room", version: 3, first: true, members: [member("ann"), member("cat")] });
	assert.deepEqual(log, ["snapshot", "count", "snapshot"]);
	assert.deepEqual([room.countOnly, room.users], [false, 2]);
	assert.deepEqual([...room.members.keys()], ["ann", "cat"]);
	ws.told({ t: "snapshot", topic: "room", version: 4, first: true, members: [member("ann"), member("dan")] });
	assert.deepEqual(log.slice(3), ["leave cat", "join dan", "snapshot"]);
});

test("while the server cannot tell, nothing is live", async () => {
	const s = await welcomed({ heartbeat: false });
	const room = s.presence("room");
	const log = [];
	room.addEventListener("change", () => log.push([room.live, room.stale]));
	const ws = FakeWebSocket.last;
	ws.told({ t: "snapshot", topic: "room", version: 1, first: true, members: [member("ann")] });
	ws.told({ t: "stale", topic: "room" });
	ws.told({ t: "stale", topic: "room" });
	assert.deepEqual([...room.members.keys()], ["ann"], "what is known stays");
	ws.told({ t: "delta", topic: "room", version: 2, changes: [{ k: "leave", user: "ann" }] });
	ws.told({ t: "live", topic: "room" });
	assert.deepEqual(log, [[true, false], [false, true], [false, true], [true, false]]);
	ws.told({ t: "stale", topic: "room" });
	ws.told({ t: "count", topic: "room", version: 3, users: 1, sessions: 1 });
	assert.deepEqual([room.live, room.stale], [true, false], "it is told anew");
	ws.told({ t: "stale", topic: "room" });
	ws.end(1006);
	assert.deepEqual([room.live, room.stale], [false, false], "now it is for another reason");
});

test("a topic that may not be followed any more says so", async () => {
	const s = await welcomed({ heartbeat: false });
	const room = s.presence("room");
	const told = [];
	room.addEventListener("error", (e) => told.push(e.error.code));
	FakeWebSocket.last.told({ t: "snapshot", topic: "room", version: 1, first: true, members: [member("ann")] });
	assert.equal(room.live, true);
	FakeWebSocket.last.told({ t: "unfollowed", topic: "room" });
	assert.deepEqual(told, ["forbidden"]);
	assert.equal(room.live, false);
	assert.equal(s.readyState, 1);
});

test("what the server takes back after a reconnect is told", async () => {
	const s = await welcomed({ heartbeat: false });
	const told = [];
	s.onerror = (e) => told.push(e.error.code);
	let ws = FakeWebSocket.last;
	s.join("room");
	s.setMeta(1);
	for (const m of ws.asked()) ws.told({ t: "ok", id: m.id });
	await settle();
	const refused = assert.rejects(s.setMeta(2), { code: "limit" });
	ws.told({ t: "error", id: ws.asked().at(-1).id, code: "limit", text: "no" });
	await refused;
	assert.deepEqual(told, []);
	ws.end(1006);
	await clock.tick(1_000);
	ws = FakeWebSocket.last.open("presence.v1");
	ws.told({ t: "welcome", v: 1, user: "ann", session: "2", interval: 0 });
	assert.deepEqual(ws.asked().map(({ t, meta }) => [t, meta]), [["join", undefined], ["set", 1]], "what was refused is not asked for again");
	for (const m of ws.asked()) ws.told({ t: "error", id: m.id, code: "forbidden", text: "no" });
	await settle();
	assert.deepEqual(told, ["forbidden", "forbidden"]);
});

test("active is told now and then, and wakes an idle socket", async () => {
	const s = await welcomed({ heartbeat: false });
	let ws = FakeWebSocket.last;
	for (let i = 0; i < 1_000; i++) {
		s.active();
		await clock.tick(10);
	}
	assert.deepEqual(ws.asked().map((m) => m.t), ["active", "active"]);
	ws.end(4408);
	await clock.tick(1e6);
	assert.equal(dials(), 1);
	s.active();
	await settle();
	assert.equal(dials(), 2);
	ws = FakeWebSocket.last.open("presence.v1");
	s.active();
	assert.deepEqual(ws.asked(), [], "not before the welcome");
});

test("join, leave and status, also over a reconnect", async () => {
	const s = await welcomed({ heartbeat: false });
	let joined = 0;
	s.join("room").then(() => joined++);
	const set = s.setStatus("busy");
	let ws = FakeWebSocket.last;
	assert.deepEqual(ws.asked(), [{ t: "join", topic: "room", id: 1 }, { t: "set", meta: { status: "busy" }, id: 2 }]);
	ws.told({ t: "ok", id: 2 });
	await set;
	ws.end(1006); // before the join was answered
	await clock.tick(1_000);
	ws = FakeWebSocket.last.open("presence.v1");
	ws.told({ t: "welcome", v: 1, user: "ann", session: "2", interval: 0 });
	await settle();
	assert.deepEqual(ws.asked().map((m) => m.t).sort(), ["join", "set"]);
	assert.equal(joined, 0);
	for (const m of ws.asked()) ws.told({ t: "ok", id: m.id });
	await settle();
	assert.equal(joined, 1);
	const left = s.leave("room");
	ws.told({ t: "ok", id: ws.asked().at(-1).id });
	await left;
	ws.end(1006);
	await clock.tick(4_000);
	ws = FakeWebSocket.last.open("presence.v1");
	ws.told({ t: "welcome", v: 1, user: "ann", session: "3", interval: 0 });
	assert.deepEqual(ws.asked().map((m) => m.t), ["set"]);
});

test("what the server refuses is rejected; what comes too fast is tried again", async () => {
	const s = await welcomed({ heartbeat: false });
	const ws = FakeWebSocket.last;
	const refused = assert.rejects(s.join("secret"), { name: "PresenceError", code: "forbidden" });
	ws.told({ t: "error", id: 1, code: "forbidden", text: "not allowed" });
	await refused;
	const room = s.presence("secret");
	ws.told({ t: "error", id: 2, code: "forbidden", text: "not allowed" });
	await assert.rejects(room.ready, { code: "forbidden" });
	const later = s.join("busy");
	ws.told({ t: "error", id: 3, code: "rate", text: "too many" });
	await clock.tick(2_000);
	assert.equal(ws.asked().at(-1).t, "join");
	ws.told({ t: "ok", id: ws.asked().at(-1).id });
	await later;
	await assert.rejects(s.setMeta("x".repeat(20_000)), { code: "too-large" });
});

test("a herd comes back flat", async () => {
	Math.random = random;
	const n = 2_000;
	for (let i = 0; i < n; i++) await connected(undefined, { heartbeat: false });
	const start = clock.now();
	for (const ws of FakeWebSocket.all.slice(0, n)) ws.end(1006);
	await clock.tick(2_000);
	const histogram = Array(10).fill(0);
	for (const ws of FakeWebSocket.all.slice(n)) histogram[Math.min(9, Math.floor((ws.at - start) / 200))]++;
	console.log(`dials per 200 ms: ${histogram.join(" ")}`);
	for (const bucket of histogram) assert.ok(bucket > n / 10 * 0.6 && bucket < n / 10 * 1.4, `${bucket}`);
});
