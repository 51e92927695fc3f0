package dnscheck

import (
	"maps"
	"slices"
)

// code is what is the same for every finding with one code.
type code struct {
	state    State
	concerns Concern
	rfc      string
}

// Codes lists the codes of all findings, in alphabetical order.
func Codes() []string { return slices.Sorted(maps.Keys(codes)) }

// codes is the catalogue of findings. The states are those of an ordinary case;
// some checks raise or lower them when they know more.
var codes = map[string]code{
	"bimi.no_enforcement": {StateWarn, TheirMail, "draft-brand-indicators-for-message-identification 7.7"},
	"bimi.not_https":      {StateWarn, TheirMail, "draft-brand-indicators-for-message-identification 4.2"},
	"bimi.syntax":         {StateWarn, TheirMail, "draft-brand-indicators-for-message-identification 4.2"},

	"dane.mismatch": {StateFail, Receiving, "RFC 7672 3.1"},
	"dane.ok":       {StateInfo, Receiving, "RFC 7672 3.1"},
	"dane.unsigned": {StateWarn, Receiving, "RFC 7672 2.2"},
	"dane.unusable": {StateWarn, Receiving, "RFC 7672 3.1.3"},

	"dkim.hash_not_allowed": {StateFail, OurMail, "RFC 6376 3.6.1"},
	"dkim.key_type":         {StateFail, OurMail, "RFC 6376 3.6.1"},
	"dkim.mismatch":         {StateFail, OurMail, "RFC 6376 6.1.3"},
	"dkim.missing":          {StateFail, OurMail, "RFC 6376 6.1.2"},
	"dkim.multiple":         {StateFail, OurMail, "RFC 6376 3.6.2.2"},
	"dkim.revoked":          {StateFail, OurMail, "RFC 6376 3.6.1"},
	"dkim.service_type":     {StateFail, OurMail, "RFC 6376 3.6.1"},
	"dkim.short_key":        {StateWarn, OurMail, "RFC 8301 3.2"},
	"dkim.syntax":           {StateFail, OurMail, "RFC 6376 3.6.1"},
	"dkim.testing":          {StateWarn, OurMail, "RFC 6376 3.6.1"},

	"dmarc.cname":            {StateInfo, TheirMail, "RFC 9989 4.10"},
	"dmarc.cname_dangling":   {StateWarn, TheirMail, "RFC 9989 4.10"},
	"dmarc.deprecated_tag":   {StateInfo, TheirMail, "RFC 9989 C"},
	"dmarc.inherited":        {StateInfo, TheirMail, "RFC 9989 4.10"},
	"dmarc.invalid_policy":   {StateFail, TheirMail, "RFC 9989 4.7"},
	"dmarc.missing":          {StateWarn, TheirMail, "RFC 9989 4.10"},
	"dmarc.missing_policy":   {StateFail, TheirMail, "RFC 9989 4.7"},
	"dmarc.multiple":         {StateFail, TheirMail, "RFC 9989 4.10"},
	"dmarc.no_rua":           {StateInfo, TheirMail, "RFC 9989 4.7"},
	"dmarc.not_aligned":      {StateFail, OurMail, "RFC 9989 4.4"},
	"dmarc.policy_none":      {StateWarn, TheirMail, "RFC 9989 4.7"},
	"dmarc.rua_invalid":      {StateWarn, TheirMail, "RFC 9989 4.7"},
	"dmarc.rua_unauthorized": {StateWarn, TheirMail, "RFC 9990 4"},
	"dmarc.sp_weaker":        {StateWarn, TheirMail, "RFC 9989 4.7"},
	"dmarc.spf_not_aligned":  {StateInfo, OurMail, "RFC 9989 4.4.2"},
	"dmarc.syntax":           {StateWarn, TheirMail, "RFC 9989 4.8"},
	"dmarc.temperror":        {StateUnknown, TheirMail, "RFC 9989 4.10"},
	"dmarc.test_mode":        {StateWarn, TheirMail, "RFC 9989 4.7"},
	"dmarc.version_case":     {StateWarn, TheirMail, "RFC 9989 4.8"},
	"dmarc.wrong_location":   {StateWarn, TheirMail, "RFC 9989 4.5"},

	"dns.edns_broken":  {StateInfo, Receiving, "RFC 6891 7"},
	"dns.refused":      {StateUnknown, Receiving, "RFC 1035 4.1.1"},
	"dns.servfail":     {StateUnknown, Receiving, "RFC 1035 4.1.1"},
	"dns.tcp_failed":   {StateUnknown, Receiving, "RFC 7766 5"},
	"dns.tcp_fallback": {StateInfo, Receiving, "RFC 7766 5"},
	"dns.timeout":      {StateUnknown, Receiving, "RFC 1035 4.2.1"},
	"dns.wildcard_txt": {StateWarn, TheirMail, "RFC 4592 4"},

	"dnsbl.listed":        {StateFail, OurMail, "RFC 5782 2.1"},
	"dnsbl.query_refused": {StateUnknown, OurMail, "RFC 5782 2.1"},

	"dnssec.bogus":  {StateFail, Receiving, "RFC 4035 5.5"},
	"dnssec.signed": {StateInfo, Receiving, "RFC 4035 3.2.3"},

	"domain.apex_cname": {StateWarn, Receiving, "RFC 1912 2.4"},
	"domain.invalid":    {StateFail, Receiving, "RFC 1035 2.3.4"},
	"domain.nxdomain":   {StateFail, Receiving, "RFC 8020 2"},

	"helo.mismatch":     {StateWarn, OurMail, "RFC 5321 4.1.4"},
	"helo.unresolvable": {StateFail, OurMail, "RFC 5321 2.3.5"},

	"history.refused": {StateWarn, Receiving, ""},

	"mtasts.cert_invalid":       {StateWarn, Receiving, "RFC 8461 3.3"},
	"mtasts.mode_testing":       {StateInfo, Receiving, "RFC 8461 5"},
	"mtasts.multiple":           {StateWarn, Receiving, "RFC 8461 3.1"},
	"mtasts.mx_mismatch":        {StateFail, Receiving, "RFC 8461 4.1"},
	"mtasts.policy_syntax":      {StateWarn, Receiving, "RFC 8461 3.2"},
	"mtasts.policy_unreachable": {StateWarn, Receiving, "RFC 8461 3.3"},
	"mtasts.redirect":           {StateWarn, Receiving, "RFC 8461 3.3"},
	"mtasts.syntax":             {StateWarn, Receiving, "RFC 8461 3.1"},

	"mx.cname":               {StateWarn, Receiving, "RFC 2181 10.3"},
	"mx.implicit":            {StateWarn, Receiving, "RFC 5321 5.1"},
	"mx.ip_literal":          {StateFail, Receiving, "RFC 5321 5.1"},
	"mx.ipv6_only":           {StateWarn, Receiving, "RFC 3974 3"},
	"mx.missing_dot":         {StateWarn, Receiving, "RFC 1035 5.1"},
	"mx.mixed_providers":     {StateWarn, Receiving, "RFC 5321 5.1"},
	"mx.none":                {StateFail, Receiving, "RFC 5321 5.1"},
	"mx.null":                {StateFail, Receiving, "RFC 7505 3"},
	"mx.null_bad_preference": {StateWarn, Receiving, "RFC 7505 3"},
	"mx.null_with_others":    {StateWarn, Receiving, "RFC 7505 3"},
	"mx.private_address":     {StateFail, Receiving, "RFC 6890 2.2"},
	"mx.target_no_address":   {StateFail, Receiving, "RFC 5321 5.1"},
	"mx.target_nxdomain":     {StateFail, Receiving, "RFC 5321 5.1"},
	"mx.target_timeout":      {StateUnknown, Receiving, "RFC 5321 5.1"},

	"ptr.mismatch": {StateFail, OurMail, "RFC 1912 2.1"},
	"ptr.missing":  {StateFail, OurMail, "RFC 1912 2.1"},

	"sender.spf_ip_missing": {StateFail, OurMail, "RFC 7208 2.3"},

	"smtp.no_starttls": {StateWarn, Receiving, "RFC 3207 4"},
	"smtp.refused":     {StateFail, Receiving, "RFC 5321 4.2"},
	"smtp.unreachable": {StateWarn, Receiving, "RFC 5321 5.1"},

	"spf.after_all":         {StateWarn, TheirMail, "RFC 7208 5.1"},
	"spf.at_lookup_limit":   {StateInfo, TheirMail, "RFC 7208 4.6.4"},
	"spf.include_loop":      {StateFail, TheirMail, "RFC 7208 4.6.4"},
	"spf.include_no_record": {StateFail, TheirMail, "RFC 7208 5.2"},
	"spf.joined_strings":    {StateWarn, TheirMail, "RFC 7208 3.3"},
	"spf.leading_space":     {StateWarn, TheirMail, "RFC 7208 4.5"},
	"spf.macro_dynamic":     {StateInfo, TheirMail, "RFC 7208 7"},
	"spf.macro_invalid":     {StateFail, TheirMail, "RFC 7208 7.1"},
	"spf.missing":           {StateWarn, TheirMail, "RFC 7208 3.1"},
	"spf.multiple":          {StateFail, TheirMail, "RFC 7208 4.5"},
	"spf.mx_limit":          {StateFail, TheirMail, "RFC 7208 4.6.4"},
	"spf.neutral_all":       {StateWarn, TheirMail, "RFC 7208 8.2"},
	"spf.no_all":            {StateWarn, TheirMail, "RFC 7208 4.7"},
	"spf.plus_all":          {StateFail, TheirMail, "RFC 7208 5.1"},
	"spf.ptr":               {StateWarn, TheirMail, "RFC 7208 5.5"},
	"spf.quoted":            {StateWarn, TheirMail, "RFC 7208 3.3"},
	"spf.redirect_ignored":  {StateWarn, TheirMail, "RFC 7208 6.1"},
	"spf.senderid":          {StateInfo, TheirMail, "RFC 7208 C"},
	"spf.syntax":            {StateFail, TheirMail, "RFC 7208 4.6"},
	"spf.temperror":         {StateUnknown, TheirMail, "RFC 7208 2.6.6"},
	"spf.too_broad":         {StateFail, TheirMail, "RFC 7208 11.4"},
	"spf.too_many_lookups":  {StateFail, TheirMail, "RFC 7208 4.6.4"},
	"spf.too_many_void":     {StateFail, TheirMail, "RFC 7208 4.6.4"},
	"spf.type99_only":       {StateWarn, TheirMail, "RFC 7208 3.1"},
	"spf.void":              {StateInfo, TheirMail, "RFC 7208 4.6.4"},
	"spf.void_at_limit":     {StateInfo, TheirMail, "RFC 7208 4.6.4"},

	"tlsrpt.missing": {StateWarn, Receiving, "RFC 8460 3"},
	"tlsrpt.syntax":  {StateWarn, Receiving, "RFC 8460 3"},
}
