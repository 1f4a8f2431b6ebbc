// Package peers compares the engine's handshake with those of other WebSocket libraries. It is a module of its
// own, so that they are no dependencies of the programs, nor of their tests.
package peers
