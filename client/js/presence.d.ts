/** What `auth` may answer before a dial. */
export type AuthAnswer =
	| void
	| undefined
	/** Another URL. */
	| string
	/** Not signed in: the socket is closed with 4401. */
	| false
	| { url?: string; query?: Record<string, string>; protocols?: string[] };

export interface PresenceSocketOptions {
	/** The server's heartbeat interval in milliseconds. Default: that of the server that serves the file, else 25,000. The welcome of presence.v1 overrides it. */
	interval?: number;
	/**
	 * Announce this client by an empty message and watch the server. Default true. Turn it off for servers that do not answer empty
	 * messages, such as an app wrapped by Middleware whose Route has no dialect EmptyMessage: the app would get that message, and
	 * a connection over which nothing comes for two intervals would be given up and dialed anew.
	 */
	heartbeat?: boolean;
	/**
	 * Offer presence.v1 from the first dial. Default false: it is offered once presence, join, leave, setMeta, setStatus or active is
	 * called. The endpoint must speak it: those of Handler and Callback do, what Middleware wraps does not, and a browser then lets
	 * no connection open.
	 */
	presence?: boolean;
	/**
	 * Called before each dial, because tokens expire. Its token must be good for more than one request: after a dial that failed, the
	 * server is asked why with the same URL.
	 */
	auth?: (() => AuthAnswer | Promise<AuthAnswer>) | null;
	/** The first bound of the random wait before a reconnect. It doubles with each try. Default 2,000. */
	minDelay?: number;
	/** The last bound. Default 30,000. */
	maxDelay?: number;
	/** A connection that lasted so long resets the bound. Default 10,000. */
	stableAfter?: number;
	/** Default 15,000. */
	connectTimeout?: number;
	/** How long a probe may take. Default 5,000, and at most an interval. */
	probeTimeout?: number;
	/** What `send` keeps while there is no connection. Default 256 messages and 1 MiB. */
	outboxMessages?: number;
	outboxBytes?: number;
	/** What `for await` keeps for a slow reader. Default 1,024. */
	iteratorMessages?: number;
	/** In place of the global one, which Node has from 22 on. That of the package ws will do. */
	WebSocket?: new (url: string, protocols?: string | string[]) => WebSocket;
	fetch?: typeof fetch;
}

/** A connection was lost, and there will be another. */
export interface DownEvent extends Event {
	readonly code: number;
	readonly reason: string;
	/** Milliseconds until the next dial; Infinity: at the next send or user activity. */
	readonly retryIn: number;
	/** Bytes given to the lost connection that had not left this machine. */
	readonly unsent: number;
}

export interface PresenceCloseEvent extends CloseEvent {
	/** The messages that were still in the outbox. */
	readonly unsent: unknown[];
}

export interface PresenceErrorEvent extends Event {
	readonly error: Error;
	readonly message: string;
}

export interface WelcomeEvent extends Event {
	readonly user: string;
	readonly session: string;
}

export interface PresenceSocketEventMap {
	open: Event;
	message: MessageEvent;
	/**
	 * A dial failed before it began; the server takes back after a reconnect what join or setMeta had got; an answering server lets no
	 * connection open that offers presence.v1 ("no-presence", once, and it is tried on); or the socket is closed for good. In the last case
	 * `close` follows, and says the same.
	 */
	error: PresenceErrorEvent;
	/** It is closed for good. */
	close: PresenceCloseEvent;
	down: DownEvent;
	welcome: WelcomeEvent;
}

type Data = Parameters<WebSocket["send"]>[0];

/** A drop-in for WebSocket that reconnects and watches the server. */
export class PresenceSocket extends EventTarget {
	static readonly CONNECTING: 0;
	static readonly OPEN: 1;
	static readonly CLOSING: 2;
	static readonly CLOSED: 3;

	constructor(url: string | URL, protocols?: string | string[], options?: PresenceSocketOptions);
	constructor(url: string | URL, options?: PresenceSocketOptions);

	readonly CONNECTING: 0;
	readonly OPEN: 1;
	readonly CLOSING: 2;
	readonly CLOSED: 3;
	readonly url: string;
	readonly readyState: number;
	readonly protocol: string;
	readonly extensions: string;
	readonly bufferedAmount: number;
	binaryType: BinaryType;
	onopen: ((this: WebSocket, ev: Event) => any) | null;
	onmessage: ((this: WebSocket, ev: MessageEvent) => any) | null;
	onerror: ((this: WebSocket, ev: Event) => any) | null;
	onclose: ((this: WebSocket, ev: CloseEvent) => any) | null;
	ondown: ((ev: DownEvent) => any) | null;
	/** Throws QuotaExceededError when the outbox is full, InvalidStateError after close. */
	send(data: Data): void;
	close(code?: number, reason?: string): void;

	/** Fulfilled while the socket is open, rejected with a CloseError when it is closed for good. */
	readonly ready: Promise<this>;
	readonly outboxLength: number;
	reconnect(): void;
	[Symbol.asyncIterator](): AsyncIterableIterator<any>;

	/** Who is in a topic, live. As all below, it needs an endpoint that speaks presence.v1, see `PresenceSocketOptions.presence`. */
	presence(topic: string): TopicPresence;
	/**
	 * Joins a topic, now and after every reconnect. While the server's store is away it is fulfilled as soon as the server knows of it, and
	 * who follows the topic, this client included, is told when the store is back.
	 */
	join(topic: string): Promise<void>;
	leave(topic: string): Promise<void>;
	setMeta(meta: unknown): Promise<void>;
	setStatus(status: string): Promise<void>;
	/** Tells the server that the user is here, so that it is neither away nor idle. Call it as often as you like: what is sent is bounded. */
	active(): void;
	readonly user: string | null;
	readonly session: string | null;

	addEventListener<K extends keyof PresenceSocketEventMap>(type: K, listener: (this: WebSocket, ev: PresenceSocketEventMap[K]) => any, options?: boolean | AddEventListenerOptions): void;
	addEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void;
	removeEventListener<K extends keyof PresenceSocketEventMap>(type: K, listener: (this: WebSocket, ev: PresenceSocketEventMap[K]) => any, options?: boolean | EventListenerOptions): void;
	removeEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | EventListenerOptions): void;
}

export default PresenceSocket;

export interface Member {
	user: string;
	/** Of a leave always "offline". */
	state: "online" | "grace" | "offline";
	away: boolean;
	sessions: number;
	/** Milliseconds since 1970. */
	since: number;
	/** Of the sessions that have any. */
	metas?: any[];
	/** Some metas were left out, because the entry would have been too long. */
	cut?: boolean;
}

export interface MemberEvent extends Event {
	readonly user: string;
	/** Of leave as last known, but offline and without sessions. */
	readonly member: Member;
	/** Of update. */
	readonly before?: Member;
	/** Of leave; "" when it is not known. */
	readonly cause?: string;
}

export interface TopicPresenceEventMap {
	join: MemberEvent;
	leave: MemberEvent;
	update: MemberEvent;
	/** The members are whole. What that changed was told as joins, leaves and updates before, but not where no names were known: at first, and after a count. */
	snapshot: Event;
	/** The topic is too large for names. Nobody has left, but `members` is empty from now on. */
	count: Event;
	/** After any of the others, and when `live` changes. */
	change: Event;
	/** The server does not let the topic be followed, or not any more; the endpoint does not speak presence.v1; or the socket is closed for good. */
	error: PresenceErrorEvent;
}

/** Who is in one topic. */
export class TopicPresence extends EventTarget {
	private constructor();
	readonly topic: string;
	readonly members: ReadonlyMap<string, Member>;
	readonly users: number;
	readonly sessions: number;
	readonly countOnly: boolean;
	/** `members` and counts are how it is now; false: how it was when the connection was lost, or while `stale`. */
	readonly live: boolean;
	/** The server is there, but cannot tell now who is in the topic: its store is away. What is known may be out of date. */
	readonly stale: boolean;
	readonly ready: Promise<this>;
	close(): void;

	addEventListener<K extends keyof TopicPresenceEventMap>(type: K, listener: (ev: TopicPresenceEventMap[K]) => any, options?: boolean | AddEventListenerOptions): void;
	addEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void;
	removeEventListener<K extends keyof TopicPresenceEventMap>(type: K, listener: (ev: TopicPresenceEventMap[K]) => any, options?: boolean | EventListenerOptions): void;
	removeEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | EventListenerOptions): void;
}

export class PresenceError extends Error {
	private constructor();
	readonly code: "bad-request" | "forbidden" | "rate" | "limit" | "unavailable" | "unknown" | "too-large" | "down" | "no-presence" | (string & {});
}

export class CloseError extends Error {
	private constructor();
	readonly code: number;
	readonly reason: string;
}
