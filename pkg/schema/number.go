package schema

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// maxExponent is more than a float64 has. The library compares numbers as fractions: one of eight bytes,
// 1e999999, took it 100 ms, and a frame holds thousands.
const maxExponent = 400

// checkNumbers names the first number in a decoded value whose exponent is out of range.
func checkNumbers(v any, at []string) error {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if err := checkNumbers(member, append(at, name)); err != nil {
				return err
			}
		}
	case []any:
		for i, item := range v {
			if err := checkNumbers(item, append(at, strconv.Itoa(i))); err != nil {
				return err
			}
		}
	case json.Number:
		i := strings.IndexAny(string(v), "eE")
		if i < 0 {
			return nil
		}
		if e, err := strconv.Atoi(string(v[i+1:])); err != nil || e > maxExponent || e < -maxExponent {
			return fmt.Errorf("%s is a number with an exponent beyond %d", place(at), maxExponent)
		}
	}
	return nil
}
