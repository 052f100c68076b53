DROP INDEX idx_symbol_order_trade_time ON binance_liqs;
