// VirtioDevice: placeholder until its first file lands.
