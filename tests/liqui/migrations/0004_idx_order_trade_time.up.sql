-- The newest liquidations of all symbols.
CREATE INDEX idx_order_trade_time ON binance_liqs (order_trade_time DESC);
