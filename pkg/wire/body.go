package wire

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// Body returns the body of an event: v's JSON object with client_id put first, so that a reader
// without our headers knows whom it is for. It wraps ErrTooLarge over MaxEvent, and fails if v is
// no object or has a client_id of its own.
func Body(client socketmeta.ClientID, v any) (json.RawMessage, error) {
	object, err := marshal(v)
	if err != nil {
		return nil, fmt.Errorf("event body: %w", err)
	}
	if !isObject(object) {
		return nil, fmt.Errorf("event body: %T is not an object in JSON", v)
	}
	if bytes.Contains(object, []byte(`"`+headerClient+`"`)) {
		var top map[string]json.RawMessage
		if err := json.Unmarshal(object, &top); err != nil {
			return nil, fmt.Errorf("event body: %w", err)
		}
		if _, ok := top[headerClient]; ok {
			return nil, fmt.Errorf("event body: %T has a client_id of its own", v)
		}
	}
	body := putFirst(headerClient, client.String(), object)
	if len(body) > MaxEvent {
		return nil, fmt.Errorf("event body: %w: it has %d bytes and may have %d", ErrTooLarge, len(body), MaxEvent)
	}
	return body, nil
}
