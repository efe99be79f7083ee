// NetdevDevices: placeholder until its first file lands.
