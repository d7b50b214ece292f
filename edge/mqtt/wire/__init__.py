"""What goes over the wire, a module a version, apart from the domain's types so that either can change alone."""
