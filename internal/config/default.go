package config

import "time"

// DefaultStream is the key of delivery.max_age that stands for every stream not named, and the stream of a listener
// that names none.
const DefaultStream = "default"

// DefaultTenant owns the mail of a listener that names no tenant.
const DefaultTenant = "default"

// Default returns the configuration of an empty file, except what depends on the machine or on other keys: hostname and
// events.dir are left empty here and filled by [Parse]. All defaults stand in this file.
func Default() *Config {
	const minute, hour, day = time.Minute, time.Hour, 24 * time.Hour
	return &Config{
		DataDir:      "/var/lib/godwit",
		DrainTimeout: 30 * time.Second,
		Limits: Limits{
			MessageSize:       50 * MiB,
			Recipients:        1000,
			Sessions:          20_000,
			SessionsPerClient: 1000,
			CommandTimeout:    5 * minute,
			DataTimeout:       5 * minute,
			WriteTimeout:      2 * minute,
			SessionAge:        hour,
			MinDataRate:       100,
			CommandLine:       2 * KiB,
			TextLine:          64 * KiB,
			HeaderSize:        256 * KiB,
			BadCommands:       20,
			Hops:              50,
		},
		Delivery: Delivery{
			Port:   25,
			MaxAge: map[string]time.Duration{DefaultStream: 72 * hour},
			Retry: []time.Duration{ // elapsed since the first attempt
				2 * minute,  // 2 min
				5 * minute,  // 7 min
				10 * minute, // 17 min
				20 * minute, // 37 min
				40 * minute, // 1 h 17 min
				hour,        // 2 h 17 min
				2 * hour,    // 4 h 17 min
				4 * hour,    // 8 h 17 min, and every 4 h from here
			},
			RetryJitter:            15,
			DelayNoticeAfter:       4 * hour,
			DelayNotices:           "asked",
			MaxAttemptsInFlight:    500,
			ConnectionsPerQueue:    20,
			ConnectTimeout:         30 * time.Second,
			IdleTimeout:            30 * time.Second,
			TransactionsPerSession: 100,
			TLS:                    "opportunistic",
			TLSPolicies:            true,
			TLSFloor:               DefaultTLSFloor(),
		},
		TLS: TLS{ACME: ACME{
			Directory: "https://acme-v02.api.letsencrypt.org/directory", Challenge: "http-01", Listen: "[::]:80",
			DNSProvider: "rfc2136", DNSKeyAlgorithm: "hmac-sha256",
		}},
		Quotas:  Quotas{Tenant: Quota{OverDay: "defer"}, Credential: Quota{OverDay: "defer"}, Client: Quota{OverDay: "defer"}},
		DNS:     DNS{Timeout: 3 * time.Second, DNSSEC: "loopback"},
		Reports: DefaultReports(),
		Inbound: Inbound{ChecksInFlight: 256, Timeout: 20 * time.Second},
		DKIM:    DefaultDKIM(),
		Journal: Journal{SegmentSize: 64 * MiB, Reserve: 64 * MiB},
		Events: Events{
			MaxSize:  256 * MiB,
			MaxAge:   day,
			Keep:     100,
			KeepFor:  30 * day,
			Compress: "gzip",
		},
		Encryption: Encryption{Seal: true},

		Log:    Log{Level: "info", Format: "text"},
		Memory: Memory{InFlight: 512 * MiB, Bodies: 128 * MiB},
	}
}

// DefaultListener returns what a listener in the file has before its own keys are read. Its limits begin as a copy of
// [Config.Limits].
func DefaultListener() Listener {
	return Listener{
		TLS: "off", Auth: "off", ClientCertificates: "off", Headers: "auto", Verify: "auto", Tenant: DefaultTenant, Stream: DefaultStream,
	}
}

// DefaultOAuth returns what an issuer in the file has before its own keys are read.
func DefaultOAuth() OAuth { return OAuth{LoginClaim: "email"} }

// DefaultRoute returns what a route in the file has before its own keys are read.
func DefaultRoute() Route { return Route{Protocol: "smtp", TLS: DefaultTLS, TLSForm: "auto"} }
