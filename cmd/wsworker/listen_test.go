package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAUnixSocketIsForUserAndGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("got %v, %v; want mode 0660", info.Mode(), err)
	}
	if _, err := listen(t.Context(), "unix:"+path); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a socket that is served was taken over: %v", err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // as after a SIGKILL
	_ = ln.Close()
	if ln, err = listen(t.Context(), "unix:"+path); err != nil {
		t.Fatalf("a socket that nobody serves is in the way: %v", err)
	}
	_ = ln.Close()
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket's file outlives its listener")
	}
}

func TestAFileThatIsNoSocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t.Context(), "unix:"+path); err == nil {
		t.Error("it was listened on")
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("got %q, %v; want the file as it was", text, err)
	}
}

func TestASocketNeedsItsWholePath(t *testing.T) {
	s := defaults()
	s.Listen = "unix:run/s"
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "whole path") {
		t.Errorf("got %v, want it to name the path", err)
	}
}
