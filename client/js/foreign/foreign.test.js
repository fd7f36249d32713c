// Foreign clients, unchanged, against chi_example: each stays connected for several timeouts of the server, on one
// session, and comes back after a restart in the way it has. PRESENCE_SERVER is the built example.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Window } from "happy-dom";
import { WebSocket } from "ws";

// It looks for a document when it is loaded, to tell Node from a page.
const { WebSocket: Reconnecting } = await import("partysocket");

// A page, as far as the other libraries look.
const page = new Window({ url: "http://localhost/" });
for (const name of ["document", "navigator", "HTMLElement", "HTMLIFrameElement", "Node"]) {
	Object.defineProperty(globalThis, name, { value: page[name], configurable: true, writable: true }); // newer Nodes have a navigator that cannot be set
}
for (const name of ["addEventListener", "removeEventListener"]) globalThis[name] = page[name].bind(page);
globalThis.window = globalThis;
// Vue wraps plain objects, and takes this class for one unless it has a browser's name.
globalThis.WebSocket = class extends WebSocket {
	get [Symbol.toStringTag]() { return "WebSocket"; }
};
globalThis.IS_REACT_ACT_ENVIRONMENT = false;
const { PresenceSocket } = await import("../presence.js");

const TIMEOUT = 6_000;
let port;
let server;

async function start() {
	server = spawn(process.env.PRESENCE_SERVER, ["-addr", `127.0.0.1:${port}`, "-interval", "2s", "-timeout", `${TIMEOUT}ms`, "-grace", "500ms"], { stdio: "ignore" });
	await until(async () => (await fetch(`http://127.0.0.1:${port}/healthz`)).ok, "the server serves");
}

async function stop(signal) {
	const ended = new Promise((resolve) => server.once("exit", resolve));
	server.kill(signal);
	await ended;
}

async function until(ok, what) {
	for (const end = Date.now() + 60_000; Date.now() < end; await sleep(50)) {
		try {
			if (await ok()) return;
		} catch {
			// not yet
		}
	}
	assert.fail(`not within a minute: ${what}`);
}

before(async () => {
	port = await new Promise((resolve) => {
		// Below those that the system chooses, so that nobody takes it while the server is down.
		const pick = () => 10_001 + 10 * Math.floor(Math.random() * 2_200);
		const s = createServer();
		s.on("error", () => s.listen(pick(), "127.0.0.1"));
		s.listen(pick(), "127.0.0.1", () => {
			const { port } = s.address();
			s.close(() => resolve(port));
		});
	});
	await start();
});
after(() => stop("SIGKILL"));

const url = (user) => `ws://127.0.0.1:${port}/ws?user=${user}`;
const sessions = async (user) => (await (await fetch(`http://127.0.0.1:${port}/online/${user}`)).json()).sessions.map((s) => s.id);

const clients = {
	ws: (user) => {
		// It has no reconnect of its own.
		let stopped = false;
		let socket;
		const dial = () => {
			socket = new WebSocket(url(user));
			socket.on("error", () => {});
			socket.on("close", () => stopped || setTimeout(dial, 500));
		};
		dial();
		return () => { stopped = true; socket.close(); };
	},
	"reconnecting-websocket": async (user) => {
		const { default: mod } = await import("reconnecting-websocket");
		const socket = new (mod.default ?? mod)(url(user), [], { WebSocket });
		return () => socket.close();
	},
	// Ours under a library that takes a constructor: it never sees a connection break, since ours comes back by itself.
	"presence.js in reconnecting-websocket": async (user) => {
		const { default: mod } = await import("reconnecting-websocket");
		const socket = new (mod.default ?? mod)(url(user), [], { WebSocket: PresenceSocket });
		const seen = [];
		let closed = 0;
		socket.onmessage = (e) => seen.push(JSON.parse(e.data));
		socket.onclose = () => closed++;
		socket.send(JSON.stringify({ status: "x".repeat(5_000) }));
		return async () => {
			assert.equal(closed, 0);
			socket.send(JSON.stringify({ status: "y".repeat(5_000) }));
			await until(() => seen.length === 2, "an answer to each");
			assert.deepEqual(seen, Array(2).fill({ error: "that status is too long" }));
			socket.close();
			await until(() => closed === 1, "it is closed");
			assert.equal(socket.readyState, 3);
		};
	},
	partysocket: async (user) => {
		const socket = new Reconnecting(url(user), [], { WebSocket });
		return () => socket.close();
	},
	vueuse: async (user) => {
		const { useWebSocket } = await import("@vueuse/core");
		const { effectScope } = await import("vue");
		const scope = effectScope();
		let seen;
		scope.run(() => { seen = useWebSocket(url(user), { heartbeat: { message: "ping", responseMessage: "pong", interval: 1_000, pongTimeout: 10_000 }, autoReconnect: true }); });
		return () => { const data = seen.data.value; seen.close(); scope.stop(); assert.equal(data, null, "no heartbeat reaches the app"); };
	},
	"react-use-websocket": async (user) => {
		const { default: mod } = await import("react-use-websocket");
		const useWebSocket = mod.default ?? mod;
		const React = await import("react");
		const { createRoot } = await import("react-dom/client");
		const seen = [];
		const root = createRoot(document.createElement("div"));
		const App = () => {
			const { lastMessage } = useWebSocket(url(user), {
				heartbeat: { message: "ping", returnMessage: "pong", interval: 1_000, timeout: 10_000 }, shouldReconnect: () => true, reconnectInterval: 500, reconnectAttempts: 100,
			});
			if (lastMessage) seen.push(lastMessage.data);
			return null;
		};
		root.render(React.createElement(App));
		return () => { root.unmount(); assert.deepEqual(seen, [], "no heartbeat reaches the app"); };
	},
};

test("each stays for three timeouts, and comes back", async (t) => {
	const names = Object.keys(clients);
	const ends = {};
	for (const name of names) ends[name] = await clients[name](name);
	const first = {};
	for (const name of names) {
		await until(async () => (first[name] = await sessions(name)).length === 1, `${name} is there`);
	}
	await sleep(3 * TIMEOUT);
	for (const name of names) {
		await t.test(`${name} stays`, async () => assert.deepEqual(await sessions(name), first[name]));
	}
	await stop("SIGTERM");
	await start();
	for (const name of names) {
		await t.test(`${name} comes back`, () => until(async () => (await sessions(name)).length === 1, name));
		await t.test(`${name} ends`, () => ends[name]());
	}
});
