package bounces

// Provider returns the id of the provider that a mail host belongs to, by its name;
// "" if it is not known.
func Provider(host string) string {
	t := compiled()
	if n, ok := t.providerOfHost(host); ok {
		return t.providers[n].id
	}
	return ""
}
