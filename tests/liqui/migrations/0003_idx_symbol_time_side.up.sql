-- Aggregates of one symbol over a time range, by side.
CREATE INDEX idx_symbol_time_side ON binance_liqs (symbol, order_trade_time, side);
