// Compiled, never run: what presence.d.ts promises to those who use it.
import Default, { CloseError, PresenceError, PresenceSocket, type Member, type PresenceSocketOptions } from "../presence.js";

const options: PresenceSocketOptions = {
	presence: true,
	auth: async () => ({ query: { token: "t" } }),
	interval: 10_000,
};
const socket = new PresenceSocket("/ws", ["chat"], options);
new Default(new URL("wss://example.com/ws"), options);

// A library that accepts a WebSocket constructor.
function library(of: new (url: string, protocols?: string | string[]) => WebSocket): WebSocket {
	return new of("wss://example.com");
}
library(PresenceSocket as unknown as typeof WebSocket);
const events: Pick<WebSocket, "send" | "close" | "readyState" | "onmessage" | "onclose" | "url" | "binaryType"> = socket;
events.onclose = (e) => console.log(e.code);

socket.addEventListener("down", (e) => console.log(e.code, e.retryIn, e.unsent));
socket.addEventListener("close", (e) => console.log(e.code, e.unsent.length));
socket.addEventListener("error", (e) => {
	if (e.error instanceof CloseError) console.log(e.error.reason);
	if (e.error instanceof PresenceError && e.error.code === "forbidden") console.log(e.message);
});

async function main(): Promise<void> {
	const open: PresenceSocket = await socket.ready;
	open.send(new Uint8Array(1));
	const room = socket.presence("room:42");
	room.addEventListener("join", (e) => console.log(e.member.since, e.user));
	room.addEventListener("change", () => {
		for (const [user, member] of room.members) console.log(user, member.metas?.[0]);
	});
	await room.ready;
	const m: Member | undefined = room.members.get("ann");
	console.log(m?.state === "grace", room.users, room.countOnly);
	await socket.join("room:42");
	await socket.setStatus("busy");
	for await (const message of socket) console.log(message);
}
void main();

// @ts-expect-error members are read only
socket.presence("x").members.set("ann", undefined);
// @ts-expect-error no such option
new PresenceSocket("/ws", { intervall: 1 });
