package config

import (
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Logging is the part of a configuration that every program has. Embed it.
type Logging struct {
	LogFormat string `config:"log_format" usage:"json for machines, console for people"`
	LogLevel  string `config:"log_level" usage:"debug, info, warn or error"`
}

// DefaultLogging is JSON from info upwards.
func DefaultLogging() Logging { return Logging{LogFormat: "json", LogLevel: "info"} }

// NewLogger returns a logger that writes lines to w, one at a time. Times are RFC 3339 in UTC
// with milliseconds. An error names the key that is wrong.
func (l Logging) NewLogger(w io.Writer) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(l.LogLevel)
	if err != nil || level > zapcore.ErrorLevel {
		return nil, Invalid("log_level", "%q must be debug, info, warn or error", l.LogLevel)
	}
	c := zap.NewProductionEncoderConfig()
	c.TimeKey = "time"
	c.EncodeTime = func(t time.Time, to zapcore.PrimitiveArrayEncoder) {
		to.AppendString(t.UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	c.EncodeDuration = zapcore.StringDurationEncoder
	var encoder zapcore.Encoder
	switch l.LogFormat {
	case "json":
		encoder = zapcore.NewJSONEncoder(c)
	case "console":
		c.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(c)
	default:
		return nil, Invalid("log_format", "%q must be json or console", l.LogFormat)
	}
	sink := zapcore.Lock(zapcore.AddSync(w))
	return zap.New(zapcore.NewCore(encoder, sink, level), zap.ErrorOutput(sink)), nil
}
