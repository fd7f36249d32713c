// presence.js: a WebSocket that survives, and who is online. One ES module, no dependencies, no build step.
//
//	import { PresenceSocket } from "./presence.js";
//	const socket = new PresenceSocket("/ws");
//	const room = socket.presence("room:42");
//	room.addEventListener("change", () => console.log([...room.members.keys()]));
//
// The protocol is described in docs/protocol.md.

/** The heartbeat interval of the server that serves this file, in milliseconds; null: not known. */
const SERVED_INTERVAL = null; // filled in by Presence.ClientJS

const PROTOCOL = "presence.v1";
const PROBE = "application/vnd.presence.probe"; // CORS allows it without asking first
const MARK = "\u0001"; // begins each message of presence.v1
const MAX_FRAME = 16 * 1024;
const ACTIVE_EVERY = 5_000; // milliseconds
const SUSPECT_AFTER = 3; // dials in a row that an answering server does not let open

const defaults = {
	interval: SERVED_INTERVAL ?? 25_000,
	heartbeat: true,
	presence: false,
	auth: null,
	minDelay: 2_000,
	maxDelay: 30_000,
	stableAfter: 10_000,
	connectTimeout: 15_000,
	probeTimeout: 5_000,
	outboxMessages: 256,
	outboxBytes: 1 << 20,
	iteratorMessages: 1024,
	WebSocket: null,
	fetch: null,
};

/** PresenceSocket is a drop-in for WebSocket that reconnects and watches the server. */
export class PresenceSocket extends EventTarget {
	static CONNECTING = 0;
	static OPEN = 1;
	static CLOSING = 2;
	static CLOSED = 3;

	#url;
	#protocols;
	#o;
	#ws = null;
	#state = PresenceSocket.CONNECTING;
	#binaryType = "blob";
	#protocol = "";
	#extensions = "";
	#handlers = {};

	#dialing = 0; // counts attempts, so that a late answer of an old one is known
	#tries = 0; // since the last stable connection
	#unopened = 0; // dials in a row that did not open, though the server answers
	#openedAt = 0;
	#obeyed = false; // retry= was, since then
	#authTried = false; // 4401 was answered by a redial that is not stable yet
	#idle = false; // 4408: the next send or user activity dials
	#patient = false; // the wait was asked for by the server: nothing shortens it
	#retryTimer = null;
	#connectTimer = null;
	#closing = null; // { code, reason } of close()

	#heardAt = 0;
	#watchTimer = null;
	#watchDue = 0;
	#probing = false;

	#outbox = [];
	#outboxBytes = 0;
	#ready = null; // { promise, resolve, reject }
	#iterators = new Set();

	#wantsPresence = false;
	#channel = false; // presence.v1 was chosen
	#welcome = null;
	#lastID = 0;
	#asked = new Map(); // id -> { done, failed }
	#views = new Map(); // topic -> TopicPresence
	#joined = new Map(); // topic -> what a join waits for
	#meta; // as it should be; undefined: never set
	#metaTaken; // as the server has last taken it
	#metaWaits = [];
	#activeAt = -Infinity;
	#off = [];

	constructor(url, protocols, options) {
		super();
		if (protocols && typeof protocols === "object" && !Array.isArray(protocols) && options === undefined) {
			[protocols, options] = [undefined, protocols];
		}
		const base = globalThis.document?.baseURI ?? globalThis.location?.href;
		let parsed;
		try {
			parsed = new URL(url, base);
		} catch {
			throw failure("SyntaxError", `The URL '${url}' is invalid.`);
		}
		if (parsed.protocol === "http:") parsed.protocol = "ws:";
		if (parsed.protocol === "https:") parsed.protocol = "wss:";
		if (parsed.protocol !== "ws:" && parsed.protocol !== "wss:") {
			throw failure("SyntaxError", `The URL's scheme must be ws, wss, http or https. '${parsed.protocol}' is not allowed.`);
		}
		if (parsed.hash) throw failure("SyntaxError", "The URL contains a fragment identifier.");
		this.#url = parsed.href;
		this.#protocols = protocols === undefined ? [] : [protocols].flat().map(String);
		this.#o = { ...defaults, ...Object.fromEntries(Object.entries(options ?? {}).filter(([, v]) => v !== undefined)) };
		this.#wantsPresence = Boolean(this.#o.presence);
		this.#renewReady();
		this.#listen();
		// One turn later, so that presence() and friends can be asked for before the protocols are offered.
		const attempt = ++this.#dialing;
		queueMicrotask(() => attempt === this.#dialing && this.#state === PresenceSocket.CONNECTING && this.#dial());
	}

	// ---- What WebSocket has.

	get url() { return this.#url; }
	get readyState() { return this.#state; }
	/** The app's own subprotocol; presence.v1 does not show. */
	get protocol() { return this.#protocol; }
	get extensions() { return this.#extensions; }
	get binaryType() { return this.#binaryType; }
	set binaryType(type) {
		if (type !== "blob" && type !== "arraybuffer") return; // as WebSocket does
		this.#binaryType = type;
		if (this.#ws) this.#ws.binaryType = type;
	}
	get bufferedAmount() { return this.#outboxBytes + (this.#ws?.bufferedAmount ?? 0); }
	get CONNECTING() { return PresenceSocket.CONNECTING; }
	get OPEN() { return PresenceSocket.OPEN; }
	get CLOSING() { return PresenceSocket.CLOSING; }
	get CLOSED() { return PresenceSocket.CLOSED; }

	get onopen() { return this.#handlers.open?.f ?? null; }
	set onopen(f) { this.#handler("open", f); }
	get onmessage() { return this.#handlers.message?.f ?? null; }
	set onmessage(f) { this.#handler("message", f); }
	get onerror() { return this.#handlers.error?.f ?? null; }
	set onerror(f) { this.#handler("error", f); }
	get onclose() { return this.#handlers.close?.f ?? null; }
	set onclose(f) { this.#handler("close", f); }
	get ondown() { return this.#handlers.down?.f ?? null; }
	set ondown(f) { this.#handler("down", f); }

	/** Sends at once when open, else queues. Throws when the queue is full, and after close. */
	send(data) {
		if (this.#state >= PresenceSocket.CLOSING) throw failure("InvalidStateError", "The socket is closed.");
		if (this.#state === PresenceSocket.OPEN && this.#ws.readyState === PresenceSocket.OPEN) {
			this.#ws.send(data);
			return;
		}
		// A WebSocket that is closing would drop it without a word.
		const size = sizeOf(data);
		if (this.#outbox.length >= this.#o.outboxMessages || this.#outboxBytes + size > this.#o.outboxBytes) {
			throw failure("QuotaExceededError", "The outbox is full: the server cannot be reached.");
		}
		this.#outbox.push([ArrayBuffer.isView(data) || data instanceof ArrayBuffer ? copyOf(data) : data, size]);
		this.#outboxBytes += size;
		if (this.#idle) this.#redial();
	}

	/** Closes for good: there is no reconnect after it. */
	close(code, reason = "") {
		if (code !== undefined && code !== 1000 && !(code >= 3000 && code <= 4999)) {
			throw failure("InvalidAccessError", `The code must be 1000, or between 3000 and 4999. ${code} is neither.`);
		}
		if (new TextEncoder().encode(reason).length > 123) throw failure("SyntaxError", "The reason is longer than 123 bytes.");
		if (this.#state >= PresenceSocket.CLOSING) return;
		const was = this.#state;
		this.#state = PresenceSocket.CLOSING;
		this.#closing = { code: code ?? 1005, reason };
		this.#dialing++;
		this.#stopTimers();
		if (was === PresenceSocket.OPEN) {
			this.#ws.close(code, reason);
			// A server that is gone never answers, and a browser waits for minutes.
			this.#connectTimer = setTimeout(() => this.#finish(1006, "", false), this.#o.probeTimeout);
			return;
		}
		this.#drop();
		queueMicrotask(() => this.#finish(was === PresenceSocket.CONNECTING && code === undefined ? 1006 : this.#closing.code, reason, false));
	}

	// ---- What WebSocket lacks.

	/** Fulfilled while the socket is open, rejected when it is closed for good. */
	get ready() { return this.#ready.promise; }

	/** How many messages wait for the connection. */
	get outboxLength() { return this.#outbox.length; }

	/** Dials now, whatever the wait, and also after it has stopped. */
	reconnect() {
		if (this.#state === PresenceSocket.CLOSING || this.#state === PresenceSocket.OPEN) return;
		if (this.#state === PresenceSocket.CLOSED) {
			this.#state = PresenceSocket.CONNECTING;
			this.#closing = null;
			this.#renewReady();
			this.#listen();
		}
		this.#redial();
	}

	/** Messages as they come: for await (const data of socket). Ends with the socket; throws if that was not wanted. */
	[Symbol.asyncIterator]() {
		const it = { queue: [], waiting: null, done: this.#state === PresenceSocket.CLOSED, error: null };
		this.#iterators.add(it);
		const settle = () => {
			if (it.queue.length > 0) return { value: it.queue.shift(), done: false };
			if (it.error) {
				const error = it.error;
				it.error = null;
				throw error;
			}
			return { value: undefined, done: true };
		};
		return {
			next: async () => {
				if (it.queue.length === 0 && !it.done) await new Promise((resolve) => { it.waiting = resolve; });
				return settle();
			},
			return: async () => {
				it.done = true;
				this.#iterators.delete(it);
				return { value: undefined, done: true };
			},
			[Symbol.asyncIterator]() { return this; },
		};
	}

	// ---- Presence.

	/** Who is in a topic, live. The same object for the same topic until it is closed. */
	presence(topic) {
		this.#usePresence();
		topic = String(topic);
		let view = this.#views.get(topic);
		if (!view) {
			view = new TopicPresence(topic, () => {
				this.#views.delete(topic);
				this.#ask({ t: "unfollow", topic }).catch(() => {});
			});
			this.#views.set(topic, view);
			this.#follow(view);
		}
		return view;
	}

	/** Joins a topic, now and after every reconnect. */
	join(topic) {
		this.#usePresence();
		topic = String(topic);
		let wait = this.#joined.get(topic);
		if (!wait) {
			wait = deferred();
			this.#joined.set(topic, wait);
			this.#sendJoin(topic, wait);
		}
		return wait.promise;
	}

	/** Leaves a topic, without a grace. */
	async leave(topic) {
		this.#usePresence();
		topic = String(topic);
		this.#joined.get(topic)?.reject(failure("AbortError", "It was left before it was joined."));
		this.#joined.delete(topic);
		if (this.#answered) await this.#ask({ t: "leave", topic });
	}

	/** Replaces this session's metadata, now and after every reconnect; null removes it. */
	setMeta(meta) {
		this.#usePresence();
		const text = JSON.stringify(meta ?? null);
		if (text === undefined) throw new TypeError("The metadata cannot be written as JSON.");
		this.#meta = JSON.parse(text);
		const wait = deferred();
		this.#metaWaits.push(wait);
		this.#sendMeta();
		return wait.promise;
	}

	/** Sets the status within the metadata. */
	setStatus(status) {
		const before = this.#meta !== null && typeof this.#meta === "object" ? this.#meta : {};
		return this.setMeta({ ...before, status });
	}

	/**
	 * Tells the server that the user is here, so that it is neither away nor idle. Call it as often as you like, for instance at
	 * each key. Messages of the app and all requests say the same.
	 */
	active() {
		this.#usePresence();
		if (this.#idle) this.#redial();
		if (!this.#welcome || Date.now() - this.#activeAt < ACTIVE_EVERY) return;
		this.#activeAt = Date.now();
		this.#ask({ t: "active" }).catch(() => {}); // a new connection says the same
	}

	/** Who the server says this is; null until it has. */
	get user() { return this.#welcome?.user ?? null; }
	get session() { return this.#welcome?.session ?? null; }

	// There is a connection, without presence.v1.
	get #foreign() { return this.#state === PresenceSocket.OPEN && this.#ws !== null && this.#wantsPresence && !this.#channel; }

	// Requests are answered, by the server or with why not.
	get #answered() { return this.#welcome !== null || this.#foreign; }

	#usePresence() {
		if (this.#wantsPresence) return;
		this.#wantsPresence = true;
		if (this.#ws && !this.#channel) this.#lost(1000, "to offer presence.v1", { delay: 0, code: 1000 });
	}

	#follow(view) {
		if (!this.#answered) return;
		this.#ask({ t: "follow", topic: view.topic }).catch((err) => {
			if (!this.#again(err, () => this.#views.get(view.topic) === view && this.#follow(view))) view._fail(err);
		});
	}

	#sendJoin(topic, wait) {
		if (!this.#answered) return;
		this.#ask({ t: "join", topic }).then(() => wait.resolve(), (err) => {
			if (this.#joined.get(topic) !== wait) return;
			if (this.#again(err, () => this.#joined.get(topic) === wait && this.#sendJoin(topic, wait))) return;
			this.#joined.delete(topic);
			if (wait.settled) this.#refused(err); // after a reconnect, when nobody waits any more
			wait.reject(err);
		});
	}

	#sendMeta() {
		if (!this.#answered || this.#meta === undefined) return;
		const waits = this.#metaWaits.splice(0);
		const meta = this.#meta;
		this.#ask({ t: "set", meta }).then(() => {
			this.#metaTaken = meta;
			waits.forEach((w) => w.resolve());
		}, (err) => {
			if (this.#again(err, () => this.#sendMeta())) {
				this.#metaWaits.unshift(...waits);
				return;
			}
			if (waits.length === 0) this.#refused(err); // after a reconnect, when nobody waits any more
			if (this.#meta === meta) this.#meta = this.#metaTaken;
			waits.forEach((w) => w.reject(err));
		});
	}

	// again says whether a request that failed is made again: here, when there were too many, or by the next welcome.
	#again(err, f) {
		if (err.code === "down") return true;
		if (err.code !== "rate" && err.code !== "unavailable") return false;
		setTimeout(() => this.#welcome && f(), 1_000 + Math.random() * 1_000);
		return true;
	}

	#refused(error) {
		this.dispatchEvent(event("error", { error, message: error.message }));
	}

	#askAgain() {
		for (const [topic, wait] of this.#joined) this.#sendJoin(topic, wait);
		this.#sendMeta();
		for (const view of this.#views.values()) this.#follow(view);
	}

	#ask(message) {
		return new Promise((resolve, reject) => {
			if (this.#foreign) return reject(new PresenceError("no-presence", "the endpoint does not speak presence.v1"));
			if (!this.#welcome) return reject(new PresenceError("down", "not connected"));
			const id = ++this.#lastID;
			const text = MARK + JSON.stringify({ ...message, id });
			if (new TextEncoder().encode(text).length > MAX_FRAME) return reject(new PresenceError("too-large", "a message is at most 16 KiB"));
			this.#asked.set(id, { resolve, reject });
			this.#ws.send(text);
		});
	}

	#told(text) {
		let m;
		try {
			m = JSON.parse(text);
		} catch {
			return; // of a later version, perhaps
		}
		switch (m.t) {
			case "welcome": {
				this.#welcome = m;
				if (typeof m.interval === "number") {
					this.#o.interval = m.interval; // 0: the server has no heartbeats
					this.#watch();
				}
				this.#askAgain();
				this.dispatchEvent(event("welcome", { user: m.user, session: m.session }));
				return;
			}
			case "ok":
				this.#asked.get(m.id)?.resolve(m);
				this.#asked.delete(m.id);
				return;
			case "error": {
				const err = new PresenceError(m.code, m.text ?? m.code);
				if (this.#asked.has(m.id)) this.#asked.get(m.id).reject(err);
				else this.#refused(err);
				this.#asked.delete(m.id);
				return;
			}
			default:
				this.#views.get(m.topic)?._told(m, () => this.#follow(this.#views.get(m.topic)));
		}
	}

	// ---- Dialing.

	#listen() {
		const on = (target, kind, f) => {
			if (!target?.addEventListener) return;
			target.addEventListener(kind, f);
			this.#off.push(() => target.removeEventListener(kind, f));
		};
		const win = typeof window === "undefined" ? globalThis : window;
		const doc = globalThis.document;
		on(win, "online", () => this.#wake());
		on(win, "pageshow", (e) => e.persisted && this.#wake());
		// A page with a live connection is not kept for the way back. The server's grace covers the time away.
		on(win, "pagehide", (e) => {
			if (!e.persisted || !this.#ws) return;
			const delay = 0;
			this.#lost(1001, "the page was put away", { delay, hold: true });
		});
		on(doc, "visibilitychange", () => doc.visibilityState === "visible" && this.#wake());
		for (const kind of ["pointerdown", "keydown"]) on(doc, kind, () => this.#idle && this.#redial());
	}

	// wake is for the moments when the world may have changed: look at once instead of waiting.
	#wake() {
		if (this.#state === PresenceSocket.OPEN) this.#probe();
		else if (this.#state === PresenceSocket.CONNECTING && !this.#ws && !this.#patient && !this.#idle) this.#redial();
	}

	#redial() {
		if (this.#ws) return;
		clearTimeout(this.#retryTimer);
		this.#idle = this.#patient = false;
		this.#dial();
	}

	async #dial() {
		clearTimeout(this.#retryTimer);
		this.#idle = this.#patient = false;
		const attempt = ++this.#dialing;
		const stale = () => attempt !== this.#dialing || this.#state !== PresenceSocket.CONNECTING;
		let url = this.#url;
		let protocols = this.#protocols;
		this.#connectTimer = setTimeout(() => {
			if (stale()) return;
			this.#dialing++;
			this.#failed(url);
		}, this.#o.connectTimeout);
		if (this.#o.auth) {
			let answer;
			try {
				answer = await this.#o.auth();
			} catch (err) {
				if (stale()) return;
				clearTimeout(this.#connectTimer);
				this.dispatchEvent(event("error", { error: err, message: String(err?.message ?? err) }));
				return this.#retry(1006, "auth failed");
			}
			if (stale()) return;
			if (answer === false) return this.#finish(4401, "not signed in", false);
			const at = new URL(typeof answer === "string" ? answer : answer?.url ?? url, this.#url);
			at.protocol = at.protocol.replace(/^http/, "ws");
			for (const [k, v] of Object.entries(answer?.query ?? {})) at.searchParams.set(k, v);
			url = at.href;
			protocols = answer?.protocols ?? protocols;
		}
		const offers = this.#wantsPresence ? [...protocols.map((p) => `${PROTOCOL}+${p}`), ...(protocols.length ? protocols : [PROTOCOL])] : protocols;
		const Native = this.#o.WebSocket ?? globalThis.WebSocket;
		let ws;
		try {
			ws = new Native(url, offers);
		} catch (err) {
			clearTimeout(this.#connectTimer);
			this.dispatchEvent(event("error", { error: err, message: err.message }));
			return this.#finish(1006, err.message, false);
		}
		this.#ws = ws;
		ws.binaryType = this.#binaryType;
		ws.onopen = () => this.#opened(ws);
		ws.onmessage = (e) => this.#message(e);
		ws.onerror = () => {};
		ws.onclose = (e) => {
			if (this.#state === PresenceSocket.CLOSING) return this.#finish(e.code, e.reason, e.wasClean);
			if (this.#state === PresenceSocket.OPEN) return this.#lost(e.code, e.reason);
			this.#drop();
			this.#failed(url);
		};
	}

	#opened(ws) {
		clearTimeout(this.#connectTimer);
		this.#state = PresenceSocket.OPEN;
		this.#openedAt = Date.now();
		this.#unopened = 0;
		this.#extensions = ws.extensions ?? "";
		this.#channel = ws.protocol === PROTOCOL || ws.protocol.startsWith(PROTOCOL + "+");
		this.#protocol = this.#channel ? ws.protocol.slice(PROTOCOL.length + 1) : ws.protocol;
		this.#heard();
		if (this.#o.heartbeat) {
			ws.send(""); // from now on each heartbeat of the server shows here, too
			this.#watch();
		}
		const waiting = this.#outbox;
		this.#outbox = [];
		this.#outboxBytes = 0;
		for (const [data] of waiting) ws.send(data);
		this.#ready.resolve(this);
		this.dispatchEvent(event("open"));
		if (this.#foreign) this.#askAgain();
	}

	#message(e) {
		this.#heard();
		const data = e.data;
		if (typeof data === "string") {
			if (data === "" && this.#o.heartbeat) return;
			if (this.#channel && data.startsWith(MARK)) return this.#told(data.slice(1));
		}
		for (const it of this.#iterators) this.#offer(it, data);
		this.dispatchEvent(messageEvent(e));
	}

	#offer(it, data) {
		if (it.done) return;
		if (it.queue.length >= this.#o.iteratorMessages) {
			it.error = failure("QuotaExceededError", "Messages came faster than they were taken.");
			it.done = true;
			this.#iterators.delete(it);
		} else {
			it.queue.push(data);
		}
		it.waiting?.();
		it.waiting = null;
	}

	// ---- The watchdog. The server sends something at least every interval; nothing has to be sent for that.

	#heard() {
		this.#heardAt = Date.now();
		this.#probing = false;
	}

	#watch() {
		clearTimeout(this.#watchTimer);
		if (!this.#o.heartbeat || !(this.#o.interval > 0) || this.#state !== PresenceSocket.OPEN) return;
		const wait = 2 * this.#o.interval - (Date.now() - this.#heardAt);
		this.#setWatch(Math.max(wait, 1));
	}

	#setWatch(wait) {
		clearTimeout(this.#watchTimer);
		this.#watchDue = Date.now() + wait;
		this.#watchTimer = setTimeout(() => this.#look(), wait);
	}

	#look() {
		const now = Date.now();
		const late = now - this.#watchDue;
		const quiet = now - this.#heardAt;
		if (quiet < 0) this.#heardAt = now; // the clock was set back
		if (this.#probing && late < this.#o.interval) return this.#lost(1006, "nothing heard from the server");
		if (quiet < 2 * this.#o.interval) return this.#watch();
		// This code was asleep, so what came meanwhile may not have been looked at yet: ask, and wait again.
		if (late >= Math.min(this.#o.interval / 2, 1_000)) return this.#probe();
		this.#lost(1006, "nothing heard for two intervals");
	}

	#probe() {
		if (!this.#o.heartbeat || !(this.#o.interval > 0) || this.#probing) return;
		this.#probing = true;
		this.#ws.send("");
		this.#setWatch(Math.min(this.#o.probeTimeout, this.#o.interval));
	}

	// ---- Ends, and what follows them.

	#lost(code, reason, plan) {
		const unsent = this.#ws?.bufferedAmount ?? 0;
		this.#drop(code === 1006 ? undefined : 1000);
		if (Date.now() - this.#openedAt >= this.#o.stableAfter && this.#openedAt > 0) {
			this.#tries = 0;
			this.#obeyed = this.#authTried = false;
		}
		this.#openedAt = 0;
		this.#retry(code, reason, plan, unsent);
	}

	// failed is for an upgrade that did not come about. The browser does not say why, so the server is asked.
	async #failed(url) {
		this.#drop();
		clearTimeout(this.#connectTimer);
		const attempt = ++this.#dialing;
		const get = this.#o.fetch ?? globalThis.fetch;
		let answer = null;
		if (get) {
			const cancel = new AbortController();
			const timer = setTimeout(() => cancel.abort(), this.#o.connectTimeout);
			try {
				answer = await get(url.replace(/^ws/, "http"), { credentials: "include", cache: "no-store", headers: { Accept: `${PROBE}, */*` }, signal: cancel.signal });
				answer.body?.cancel?.().catch(() => {});
			} catch {
				// No answer either: the network, or another origin that does not let us look.
			}
			clearTimeout(timer);
		}
		if (attempt !== this.#dialing || this.#state !== PresenceSocket.CONNECTING) return;
		switch (answer?.status) {
			case 401:
			case 403:
				return this.#finish(4000 + answer.status, `HTTP ${answer.status}`, false);
			case 429:
			case 503: {
				const delay = retryAfter(answer.headers.get("Retry-After"));
				if (delay > 0) return this.#retry(1006, `HTTP ${answer.status}`, { delay: delay + Math.random() * this.#o.minDelay, patient: true });
			}
		}
		this.#unopened = answer && answer.status !== 429 && answer.status < 500 ? this.#unopened + 1 : 0;
		if (this.#wantsPresence && this.#unopened === SUSPECT_AFTER) {
			const err = new PresenceError("no-presence", `the server answers HTTP ${answer.status}, but lets no connection open that offers presence.v1. Its endpoint may not speak that: those of Handler and Callback do, what Middleware wraps does not. Or the URL is wrong, or a proxy takes the upgrade out`);
			for (const view of this.#views.values()) view._error(err);
			this.#refused(err);
			if (attempt !== this.#dialing || this.#state !== PresenceSocket.CONNECTING) return;
		}
		this.#retry(1006, answer ? `HTTP ${answer.status}` : "");
	}

	#retry(code, reason, plan, unsent = 0) {
		this.#state = PresenceSocket.CONNECTING;
		if (this.#ready.settled) this.#renewReady();
		plan ??= this.#plan(code, reason);
		if (plan.stop) return this.#finish(code, reason, true);
		this.dispatchEvent(event("down", { code, reason, retryIn: plan.idle ? Infinity : plan.delay, unsent }));
		if (this.#state !== PresenceSocket.CONNECTING || this.#ws) return; // somebody closed or redialed just now
		this.#idle = plan.idle ?? false;
		this.#patient = plan.patient ?? false;
		if (this.#idle && this.#outbox.length > 0) this.#redial();
		else if (!this.#idle && !plan.hold) this.#retryTimer = setTimeout(() => this.#dial(), plan.delay);
	}

	// plan is the policy: what a close code means for the next dial.
	#plan(code, reason) {
		switch (code) {
			case 1012:
			case 1013: {
				const told = /^retry=(\d{1,9})$/.exec(reason);
				if (!told) return { delay: this.#backoff() };
				// Told again by connections that did not last, this would dial in a circle, as fast as the server closes them.
				const least = this.#obeyed ? this.#backoff() : 0;
				this.#obeyed = true;
				return { delay: Math.max(Number(told[1]), least), patient: true };
			}
			case 4401:
				if (!this.#o.auth || this.#authTried) return { stop: true };
				this.#authTried = true;
				return { delay: 0 };
			case 4408:
				return { idle: true };
			case 4429:
				return { delay: this.#o.maxDelay * (1 - Math.random() / 2), patient: true };
		}
		if (code >= 4000 && code <= 4999) return { stop: true };
		return { delay: this.#backoff() };
	}

	// backoff is full jitter: anything up to a bound that doubles.
	#backoff() {
		const bound = Math.min(this.#o.maxDelay, this.#o.minDelay * 2 ** Math.min(this.#tries++, 30));
		return Math.random() * bound;
	}

	// drop forgets the connection and what belongs to it.
	#drop(code) {
		clearTimeout(this.#watchTimer);
		clearTimeout(this.#connectTimer);
		this.#probing = false;
		this.#channel = false;
		this.#welcome = null;
		const ws = this.#ws;
		this.#ws = null;
		if (ws) {
			ws.onopen = ws.onmessage = ws.onclose = null;
			ws.onerror = () => {};
			if (ws.readyState < 2) ws.close(...(code ? [code] : []));
		}
		const asked = [...this.#asked.values()];
		this.#asked.clear();
		for (const { reject } of asked) reject(new PresenceError("down", "the connection was lost"));
		for (const view of this.#views.values()) view._down();
	}

	#stopTimers() {
		for (const timer of [this.#retryTimer, this.#connectTimer, this.#watchTimer]) clearTimeout(timer);
	}

	#finish(code, reason, wasClean) {
		if (this.#state === PresenceSocket.CLOSED) return;
		const wanted = this.#closing !== null;
		this.#dialing++;
		this.#stopTimers();
		this.#drop();
		this.#state = PresenceSocket.CLOSED;
		this.#idle = false;
		for (const off of this.#off.splice(0)) off();
		const unsent = this.#outbox.map(([data]) => data);
		this.#outbox = [];
		this.#outboxBytes = 0;
		const err = new CloseError(code, reason);
		for (const wait of [...this.#joined.values(), ...this.#metaWaits]) wait.reject(err);
		this.#joined.clear();
		this.#metaWaits = [];
		for (const view of this.#views.values()) view._fail(err);
		if (this.#ready.settled) this.#renewReady();
		this.#ready.reject(err);
		for (const it of this.#iterators) {
			it.done = true;
			if (!wanted) it.error = err;
			it.waiting?.();
		}
		this.#iterators.clear();
		if (!wanted) this.dispatchEvent(event("error", { error: err, message: err.message }));
		this.dispatchEvent(closeEvent(code, reason, wasClean, unsent));
	}

	#renewReady() {
		const ready = deferred();
		this.#ready = ready;
	}

	#handler(kind, f) {
		let h = this.#handlers[kind];
		if (!h) {
			h = this.#handlers[kind] = { f: null };
			this.addEventListener(kind, (e) => h.f?.call(this, e));
		}
		h.f = typeof f === "function" ? f : null;
	}
}

export default PresenceSocket;

/** TopicPresence is who is in one topic, kept up to date while the socket is. */
export class TopicPresence extends EventTarget {
	#members = new Map();
	#counts = { users: 0, sessions: 0 };
	#countOnly = false;
	#live = false;
	#stale = false; // the server cannot tell now
	#named = false; // members are what the server has told, now or before the loss
	#gap = false; // a delta is missing, and a snapshot was asked for
	#version = 0;
	#parts = null; // of a snapshot that is not complete
	#ready = deferred();
	#close;

	constructor(topic, close) {
		super();
		this.topic = topic;
		this.#close = close;
	}

	/** user -> { user, state, away, sessions, since, metas }. Empty while countOnly. */
	get members() { return this.#members; }
	get users() { return this.#countOnly ? this.#counts.users : this.#members.size; }
	get sessions() {
		if (this.#countOnly) return this.#counts.sessions;
		let n = 0;
		for (const m of this.#members.values()) n += m.sessions;
		return n;
	}
	/** The topic is too large for names: only users and sessions are known. */
	get countOnly() { return this.#countOnly; }
	/** What is shown is how it is now; false: how it was when the connection was lost, or the server could tell last. */
	get live() { return this.#live && !this.#stale; }
	/** The server is there, and cannot tell who is in the topic now. */
	get stale() { return this.#stale; }
	/** Fulfilled with the first members or counts; rejected if the server refuses. */
	get ready() { return this.#ready.promise; }

	/** Stops following. */
	close() {
		this.#close?.();
		this.#close = null;
		this.#live = this.#stale = false;
	}

	_down() {
		this.#parts = null;
		this.#gap = this.#stale = false;
		if (!this.#live) return;
		this.#live = false;
		this.dispatchEvent(event("change"));
	}

	_fail(error) {
		this.#live = this.#stale = false;
		this.#ready.reject(error);
		this._error(error);
	}

	_error(error) {
		this.dispatchEvent(event("error", { error, message: error.message }));
	}

	_told(m, again) {
		switch (m.t) {
			case "snapshot":
				if (!this.#parts || m.first) this.#parts = [];
				this.#parts.push(...m.members);
				this.#version = m.version;
				this.#gap = false;
				if (m.more) return;
				this.#countOnly = false;
				this.#replace(this.#parts);
				this.#parts = null;
				this.#now("snapshot");
				return;
			case "delta": {
				if (this.#gap) return;
				if (m.version !== this.#version + 1) {
					this.#gap = true;
					again();
					return;
				}
				this.#version = m.version;
				const events = [];
				for (const c of m.changes) {
					const before = this.#members.get(c.user ?? c.member?.user);
					if (c.k === "leave") {
						this.#members.delete(c.user);
						if (before) events.push(event("leave", { user: c.user, member: gone(before), cause: c.cause ?? "" }));
					} else {
						this.#members.set(c.member.user, c.member);
						events.push(event(before ? "update" : "join", { user: c.member.user, member: c.member, before }));
					}
				}
				for (const e of events) this.dispatchEvent(e);
				this.dispatchEvent(event("change"));
				return;
			}
			case "count":
				this.#version = m.version;
				this.#members.clear();
				this.#named = this.#gap = false;
				this.#countOnly = true;
				this.#counts = { users: m.users, sessions: m.sessions };
				this.#now("count");
				return;
			case "stale":
			case "live":
				if (this.#stale === (m.t === "stale")) return;
				this.#stale = !this.#stale;
				this.dispatchEvent(event("change"));
				return;
			case "unfollowed":
				this._fail(new PresenceError("forbidden", "the topic may not be followed any more"));
		}
	}

	#now(kind) {
		this.#live = true;
		this.#stale = false;
		this.#ready.resolve(this);
		this.dispatchEvent(event(kind));
		this.dispatchEvent(event("change"));
	}

	// replace tells what a snapshot changed, so that nobody has to compare lists. Where no names were known, at first and after
	// a count, nobody came or went: the event snapshot says it all.
	#replace(list) {
		const before = new Map(this.#members);
		this.#members.clear();
		for (const m of list) this.#members.set(m.user, m);
		const named = this.#named;
		this.#named = true;
		if (!named) return;
		for (const [user, member] of before) {
			if (!this.#members.has(user)) this.dispatchEvent(event("leave", { user, member: gone(member), cause: "" }));
		}
		for (const [user, member] of this.#members) {
			const was = before.get(user);
			if (!was) this.dispatchEvent(event("join", { user, member }));
			else if (JSON.stringify(was) !== JSON.stringify(member)) this.dispatchEvent(event("update", { user, member, before: was }));
		}
	}
}

// gone is the member of a leave.
function gone(member) {
	return { ...member, state: "offline", away: false, sessions: 0 };
}

/** What the server answered to a request, with a code of docs/protocol.md; or why it was not asked. */
export class PresenceError extends Error {
	constructor(code, text) {
		super(`presence: ${text} (${code})`);
		this.name = "PresenceError";
		this.code = code;
	}
}

/** Why the socket is closed for good. */
export class CloseError extends Error {
	constructor(code, reason) {
		super(`presence: closed${reason ? `: ${reason}` : ""} (${code})`);
		this.name = "CloseError";
		this.code = code;
		this.reason = reason;
	}
}

function deferred() {
	const d = { settled: false };
	d.promise = new Promise((resolve, reject) => {
		d.resolve = (v) => { d.settled = true; resolve(v); };
		d.reject = (err) => { d.settled = true; reject(err); };
	});
	d.promise.catch(() => {}); // who does not ask is told by an event
	return d;
}

function event(type, fields = {}) {
	const e = new Event(type);
	for (const [name, value] of Object.entries(fields)) Object.defineProperty(e, name, { value, enumerable: true });
	return e;
}

function messageEvent(e) {
	if (typeof MessageEvent !== "undefined") return new MessageEvent("message", { data: e.data, origin: e.origin ?? "" });
	return event("message", { data: e.data, origin: e.origin ?? "" });
}

function closeEvent(code, reason, wasClean, unsent) {
	if (typeof CloseEvent === "undefined") return event("close", { code, reason, wasClean, unsent });
	const e = new CloseEvent("close", { code, reason, wasClean });
	Object.defineProperty(e, "unsent", { value: unsent });
	return e;
}

function failure(name, text) {
	return typeof DOMException === "undefined" ? Object.assign(new Error(text), { name }) : new DOMException(text, name);
}

function sizeOf(data) {
	if (typeof data === "string") return new TextEncoder().encode(data).length;
	return data?.byteLength ?? data?.size ?? String(data).length;
}

// copyOf: WebSocket.send takes the bytes as they are at the call.
function copyOf(data) {
	return ArrayBuffer.isView(data) ? data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength) : data.slice(0);
}

// retryAfter is more than 0 if the server has said how long to wait.
function retryAfter(value) {
	if (/^\d+$/.test(value?.trim())) return Number(value) * 1_000;
	return Date.parse(value) - Date.now();
}
