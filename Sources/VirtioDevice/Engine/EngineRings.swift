public struct EngineRings: ~Copyable {}
