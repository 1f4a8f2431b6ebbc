package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"
)

func TestAWatchOfAProcessThatHasEndedIsAnError(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := watch(t.Context(), os.Getpid(), ended.Process.Pid)(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := watch(t.Context(), os.Getpid())(); err != nil {
		t.Error(err)
	}
}
