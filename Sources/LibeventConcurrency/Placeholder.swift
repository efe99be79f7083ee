// LibeventConcurrency: placeholder until its first file lands.
