// NetdevTesting: placeholder until its first file lands.
