// Responder: placeholder until its first file lands.
