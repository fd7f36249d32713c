// What the tests stand on: a clock that is moved by hand, a WebSocket that does as it is told, and a page.

let now = 0;
let nextTimer = 1;
let timers = new Map();

const RealDate = Date;

export const clock = {
	install() {
		now = RealDate.UTC(2026, 0, 1);
		timers = new Map();
		globalThis.setTimeout = (f, ms = 0, ...args) => {
			timers.set(nextTimer, { at: now + Math.max(0, ms), f: () => f(...args) });
			return nextTimer++;
		};
		globalThis.clearTimeout = (id) => timers.delete(id);
		globalThis.Date = class extends RealDate {
			constructor(...args) { super(...(args.length ? args : [now])); }
			static now() { return now; }
		};
	},
	now: () => now,
	waiting: () => timers.size,
	// tick lets time pass: each timer fires when it is due.
	async tick(ms) {
		await settle();
		const until = now + ms;
		for (;;) {
			const due = [...timers].filter(([, t]) => t.at <= until).sort((a, b) => a[1].at - b[1].at)[0];
			if (!due) break;
			timers.delete(due[0]);
			now = Math.max(now, due[1].at);
			due[1].f();
			await settle();
		}
		now = until;
		await settle();
	},
	// sleep lets time pass without anything running, as when a lid is closed.
	sleep(ms) { now += ms; },
	// due runs what has become due during the sleep.
	async due() { await clock.tick(0); },
};

// settle lets promises go on.
export async function settle() {
	for (let i = 0; i < 30; i++) await Promise.resolve();
}

export class FakeWebSocket {
	static all = [];
	static get last() { return FakeWebSocket.all.at(-1); }
	// serve is called with each socket, as a server would be.
	static serve = null;

	readyState = 0;
	protocol = "";
	extensions = "";
	bufferedAmount = 0;
	binaryType = "blob";
	sent = [];
	closed = null;

	constructor(url, protocols) {
		this.url = url;
		this.protocols = [protocols ?? []].flat();
		this.at = now;
		FakeWebSocket.all.push(this);
		FakeWebSocket.serve?.(this);
	}
	send(data) { this.sent.push(data); this.onsend?.(data); }
	close(code, reason) {
		this.closed ??= { code, reason };
		this.readyState = Math.max(this.readyState, 2);
	}

	// What the server does.
	open(protocol = "") {
		this.protocol = protocol;
		this.readyState = 1;
		this.onopen?.();
		return this;
	}
	message(data) { this.onmessage?.({ data, origin: "wss://x" }); }
	told(m) { this.message("\u0001" + JSON.stringify(m)); }
	end(code = 1006, reason = "") {
		this.readyState = 3;
		this.onerror?.();
		this.onclose?.({ code, reason, wasClean: code !== 1006 });
	}
	asked() { return this.sent.filter((d) => typeof d === "string" && d.startsWith("\u0001")).map((d) => JSON.parse(d.slice(1))); }
	texts() { return this.sent.filter((d) => d !== "" && !(typeof d === "string" && d.startsWith("\u0001"))); }
}

// page is a window and a document that events can be sent to.
export function page() {
	globalThis.window = new EventTarget();
	globalThis.document = Object.assign(new EventTarget(), { visibilityState: "visible", baseURI: "https://example.com/app/" });
}

export function fire(target, type, fields = {}) {
	target.dispatchEvent(Object.assign(new Event(type), fields));
}
