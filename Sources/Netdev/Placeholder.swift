// Netdev: placeholder until its first file lands.
