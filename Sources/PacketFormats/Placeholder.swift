// PacketFormats: placeholder until its first file lands.
