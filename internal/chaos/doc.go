// Package chaos breaks a private cluster on purpose, by a seeded schedule, while clients and tasks
// run on it, and keeps a ledger of what became of every event: the delivery guarantee, put to the
// test from outside.
//
// What it counts it counts from journals that it writes itself: publishers of its own (they are no
// part of the code under test) note what they handed to the broker and what the broker confirmed,
// and clients note what came off their sockets and what their applications got. The schedule
// (Plan), the journals' form (Journal, Entry) and the arithmetic (Ledger) are pure; Run is the
// shell around them.
package chaos
