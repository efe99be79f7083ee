// InProcess: placeholder until its first file lands.
