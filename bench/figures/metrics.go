package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// internal gets a page of a worker's internal listener.
func internal(ctx context.Context, addr, path string) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		return nil, fmt.Errorf("get %s of %s: %s", path, addr, answer.Status)
	}
	return answer.Body, nil
}

// metric reads one value without labels from a worker's /metrics.
func metric(ctx context.Context, addr, name string) (float64, error) {
	page, err := internal(ctx, addr, "/metrics")
	if err != nil {
		return 0, err
	}
	defer page.Close()
	lines := bufio.NewScanner(page)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("the metrics of %s have no %s", addr, name)
}
