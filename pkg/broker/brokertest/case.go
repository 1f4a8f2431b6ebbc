package brokertest

import (
	"testing"
)

type testCase struct {
	*testing.T
	Harness
}

func newCase(t *testing.T, h Harness) *testCase { return &testCase{t, h} }
