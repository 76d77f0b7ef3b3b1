package httpapi

// Routes returns the table, for walking over it.
func Routes(o Options) (list []struct {
	Pattern string
	Role    Role
	Tenants bool
}) {
	h := &handler{server: o.Server, auditor: o.Auditor, directory: o.Directory, limits: o.Limits, doctor: o.Doctor, dkim: o.DKIM}
	for _, t := range h.routes() {
		list = append(list, struct {
			Pattern string
			Role    Role
			Tenants bool
		}{t.pattern, t.role, t.tenants})
	}
	return list
}
