package amqp

import (
	"cmp"
	"fmt"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
)

// What AMQP 0-9-1 can carry beside a body.
const (
	maxShortString = 255      // bytes of a property or of a header's name
	maxHeaders     = 60 << 10 // bytes of all headers: they must fit into one frame of 128 KiB, with the properties
)

// Headers of our own and of RabbitMQ that are not part of a broker.Message.
const (
	headerPublish       = "x-wscluster-publish" // int64: the publisher's number, by which a Return is known
	headerFence         = "x-wscluster-fence"   // of a message by which the owner of a queue sees that it is empty; see retire.go
	headerDeliveryCount = "x-delivery-count"    // quorum queues: deliveries before this one
	headerOffset        = "x-stream-offset"     // int64; streams: the place of a record
)

const (
	transient  = 1 // delivery modes
	persistent = 2

	contentJSON = "application/json" // "" in a broker.Message
)

// encode checks m and makes a publishing of it that shares its body and nothing else.
func encode(m broker.Message) (amqp091.Publishing, error) {
	if err := m.Check(); err != nil {
		return amqp091.Publishing{}, err
	}
	for _, p := range []string{m.ID, m.Type, m.Content, m.Correlation, m.App} {
		if len(p) > maxShortString {
			return amqp091.Publishing{}, fmt.Errorf("%w: message %.40q: ID, type, content, correlation and app have at most %d bytes each", broker.ErrTooLarge, m.ID, maxShortString)
		}
	}
	headers := make(amqp091.Table, len(m.Headers)+1)
	size := 0
	for name, v := range m.Headers {
		if len(name) > maxShortString {
			return amqp091.Publishing{}, fmt.Errorf("%w: message %.40q: the name of header %.40q has over %d bytes", broker.ErrTooLarge, m.ID, name, maxShortString)
		}
		text, _ := v.(string)
		size += len(name) + len(text) + 16
		headers[name] = v
	}
	if size > maxHeaders {
		return amqp091.Publishing{}, fmt.Errorf("%w: message %.40q has %d bytes of headers, at most %d fit", broker.ErrTooLarge, m.ID, size, maxHeaders)
	}
	mode := uint8(persistent)
	if m.Transient {
		mode = transient
	}
	return amqp091.Publishing{
		Headers:       headers,
		ContentType:   cmp.Or(m.Content, contentJSON),
		DeliveryMode:  mode,
		CorrelationId: m.Correlation,
		MessageId:     m.ID,
		Timestamp:     m.Time,
		Type:          m.Type,
		AppId:         m.App,
		Body:          m.Body,
	}, nil
}

// decode takes over what d holds, and changes its headers. Anybody may have published it: header values of other types
// are made one of the port's three where that loses nothing, and left out otherwise.
func decode(d amqp091.Delivery) broker.Delivery {
	headers := map[string]any(d.Headers)
	delete(headers, headerPublish)
	delete(headers, headerDeliveryCount)
	for name, v := range headers {
		switch v.(type) {
		case string, int64, bool:
			continue
		}
		if v = value(v); v != nil {
			headers[name] = v
		} else {
			delete(headers, name)
		}
	}
	if len(headers) == 0 {
		headers = nil
	}
	var at time.Time
	if !d.Timestamp.IsZero() {
		at = d.Timestamp.UTC()
	}
	content := d.ContentType
	if content == contentJSON {
		content = ""
	}
	return broker.Delivery{
		Message: broker.Message{
			ID:          d.MessageId,
			Type:        d.Type,
			Content:     content,
			Correlation: d.CorrelationId,
			App:         d.AppId,
			Time:        at,
			Headers:     headers,
			Body:        d.Body,
			Transient:   d.DeliveryMode != persistent,
		},
		Tag:         d.DeliveryTag,
		Redelivered: d.Redelivered,
	}
}

// value returns v as a string, int64 or bool, or nil if it is none of these.
func value(v any) any {
	switch v := v.(type) {
	case string, int64, bool:
		return v
	case []byte:
		return string(v)
	case int8:
		return int64(v)
	case uint8:
		return int64(v)
	case int16:
		return int64(v)
	case uint16:
		return int64(v)
	case int32:
		return int64(v)
	case uint32:
		return int64(v)
	case int:
		return int64(v)
	}
	return nil
}
