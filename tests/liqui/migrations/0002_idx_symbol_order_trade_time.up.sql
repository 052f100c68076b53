-- The newest liquidations of one symbol.
CREATE INDEX idx_symbol_order_trade_time ON binance_liqs (symbol, order_trade_time DESC);
